"""Settings: TOML round trips, merging, and what is refused."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0prune import ConfigError, GateConfig, RunConfig, StageConfig
from l0prune.config import build, merge, to_mapping, write_toml

KEYS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
SCALARS = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20)
TABLES = st.recursive(
    st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=4), max_size=4),
    lambda inner: st.dictionaries(KEYS, inner | SCALARS, max_size=4),
    max_leaves=8,
)


@given(TABLES)
def test_toml_survives_a_round_trip(values: dict[str, object]) -> None:
    assert tomllib.loads(write_toml(values)) == values


def test_a_run_survives_a_round_trip() -> None:
    gates = GateConfig(drop_rates={"ffn": 0.5}, mask_value="published_mask")
    run = RunConfig(plugin="speech", gates=gates, joint=StageConfig(steps=7, learning_rate=1e-5))
    assert build(RunConfig, tomllib.loads(write_toml(to_mapping(run)))) == run


@given(TABLES, TABLES)
def test_later_layers_win(first: dict[str, object], second: dict[str, object]) -> None:
    merged = merge(first, second)
    assert set(merged) == set(first) | set(second)
    assert merge(merged, second) == merged
    assert merge(first, {}) == first


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_sparsty": 0.5}, "did you mean 'target_sparsity'"),
        ({"joint": {"step": 5}}, r"joint\.step.*did you mean 'steps'"),
        ({"target_sparsity": "half"}, "target_sparsity.*'half'"),
        ({"joint": 5}, "joint"),
        ({"seed": True}, "seed"),
        ({"gates": {"drop_rates": {"ffn": "x"}}}, r"gates\.drop_rates\.ffn"),
        ({"target_sparsity": 1.0}, "between 0 and 1"),
        ({"metric": "flops"}, "unknown metric"),
        ({"gates": {"mask_value": "median"}}, "mask_value"),
        ({"joint": {"steps": 5, "learning_rate": 1e-3, "warmup_steps": 6}}, "warmup_steps"),
    ],
)
def test_wrong_settings_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(RunConfig, {"plugin": "speech", **values})
