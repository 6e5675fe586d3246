"""What a run has found so far: saved and read again, from older checkpoints too."""

from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from l0prune.workflows.results import RunResults

_NUMBERS = st.none() | st.floats(allow_nan=False)
_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "stage_seconds": st.dictionaries(st.sampled_from(["joint", "further"]), st.floats(0, 1e6)),
        "skipped_steps": st.integers(0, 9),
        "macs_before": st.integers(1, 10**12),
        "distill_loss_gated": _NUMBERS,
        "compactions": st.lists(st.fixed_dictionaries({"step": st.integers(0, 99), "kept": st.just({"first": 2})})),
        "latency_after_ms": _NUMBERS,
        "peak_watts": st.integers(1, 400),
    },
)


@given(facts=_FACTS)
def test_what_is_saved_is_read_again(facts: dict[str, Any]) -> None:
    results = RunResults.of(facts)
    saved = results.facts()
    assert RunResults.of(saved) == results
    assert {name: value for name, value in facts.items() if value is not None}.items() <= saved.items()


def test_an_older_checkpoint_knows_less() -> None:
    results = RunResults.of({"stage_seconds": {}, "step_seconds": {}, "macs_before": 7})
    assert (results.macs_before, results.skipped_steps, results.compactions) == (7, 0, [])
    assert "forced_units" not in results.facts()


def test_what_is_saved_is_no_part_of_the_results() -> None:
    results = RunResults(compactions=[{"step": 1, "kept": {"first": 2}}])
    saved = results.facts()
    before = asdict(results)
    saved["compactions"][0]["kept"]["first"] = 9
    RunResults.of(saved).stage_seconds["joint"] = 1.0
    assert asdict(results) == before


def test_a_metric_fills_what_it_measures_and_nothing_else() -> None:
    results = RunResults(macs_before=7)
    results.learn({"speedup": 2.0, "macs_before": 9, "peak_watts": 3})
    assert (results.speedup, results.macs_before) == (2.0, 7)
    assert results.metric_facts == {"macs_before": 9, "peak_watts": 3}
    assert results.facts()["macs_before"] == 7
