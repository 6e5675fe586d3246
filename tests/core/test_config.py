"""Settings: TOML round trips, merging, and what is refused."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0prune import ConfigError, GateConfig, RunConfig, StageConfig
from l0prune.support import build, merge, read_toml, to_mapping, write_toml

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
        (
            {"joint": {"steps": 5, "learning_rate": float("inf")}},
            r"not a finite number: joint\.learning_rate \(got inf",
        ),
        ({"checkpoint_minutes": float("inf")}, "not a finite number: checkpoint_minutes"),
        ({"gates": {"mask_value": "median"}}, "mask_value"),
        ({"joint": {"steps": 5, "learning_rate": 1e-3, "warmup_steps": 6}}, "warmup_steps"),
    ],
)
def test_wrong_settings_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(RunConfig, {"plugin": "speech", **values})


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=6) | st.dictionaries(st.text(max_size=6), SCALARS)))
def test_any_text_can_be_a_key(values: dict[str, object]) -> None:
    assert tomllib.loads(write_toml(values)) == values


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (GateConfig, {"temperature": float("nan")}),
        (GateConfig, {"low": 0.0}),
        (GateConfig, {"high": 1.0}),
        (GateConfig, {"drop_rate": 0.0}),
        (GateConfig, {"drop_rates": {"ffn": 1.0}}),
        (GateConfig, {"round_to": 0}),
        (StageConfig, {"steps": -1, "learning_rate": 1.0}),
        (StageConfig, {"steps": 1, "learning_rate": 0.0}),
        (StageConfig, {"steps": 1, "learning_rate": 1.0, "micro_batches": 0}),
        (StageConfig, {"steps": 1, "learning_rate": 1.0, "max_gradient_norm": -1.0}),
        (StageConfig, {"steps": 1, "learning_rate": 1.0, "weight_decay": -1.0}),
        (StageConfig, {"steps": 1, "learning_rate": 1.0, "weight_decay": float("nan")}),
        (StageConfig, {"learning_rate": 1.0}),
        (RunConfig, {"plugin": "speech", "seed": -1}),
        (RunConfig, {"plugin": "speech", "precision": "float16"}),
        (RunConfig, {"plugin": "speech", "log_every": 0}),
        (RunConfig, {"plugin": "speech", "checkpoint_minutes": float("nan")}),
        (RunConfig, {}),
    ],
)
def test_values_out_of_range_are_refused(cls: type, values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"out of range|unknown|missing"):
        build(cls, values)


def test_files_that_are_not_toml_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        read_toml(path)
    for content in (b"a = ", b"\xff\xfe", b"[a]\n[a]\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"not a TOML file: .*run\.toml"):
            read_toml(path)
    path.write_text(write_toml({"joint": {"steps": 3}, "text": "é"}), encoding="utf-8")
    assert read_toml(path) == {"joint": {"steps": 3}, "text": "é"}
