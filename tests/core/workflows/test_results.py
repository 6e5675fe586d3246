"""What a run has found so far: saved and read again, from older checkpoints too."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0prune.workflows.results import Compaction, RunResults

_TARGET: dict[str, Any] = {
    "metric": "macs",
    "counts": "multiply-accumulates",
    "unit": 1.0,
    "dense": 9,
    "budget": 5,
    "size": 4,
    "binds": True,
    "alone": {"macs": 5},
    "alone_units": 0.5,
}


def _elastic(losses: list[float | None]) -> dict[str, Any]:
    curve = [{"asked": 0.5, "left": 0.4, "parameters": 7, "loss": loss} for loss in losses]
    return {"smallest": 0.25, "largest": 1.0, "metric": "params", "curve": curve}


_NUMBERS = st.none() | st.floats(allow_nan=False)
_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "stage_seconds": st.dictionaries(st.sampled_from(["joint", "further"]), st.floats(0, 1e6)),
        "skipped_steps": st.integers(0, 9),
        "macs_before": st.integers(1, 10**12),
        "distill_loss_gated": _NUMBERS,
        "compactions": st.lists(
            st.fixed_dictionaries(
                {"step": st.integers(0, 99), "parameters": st.integers(0, 9), "kept": st.just({"first": 2})}
            )
        ),
        "targets": st.lists(st.just(_TARGET), max_size=2),
        "selection_gap": _NUMBERS,
        "elastic": st.none() | st.builds(_elastic, st.lists(_NUMBERS, max_size=3)),
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
    results = RunResults(compactions=[Compaction(step=1, parameters=9, kept={"first": 2})])
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


def test_rows_are_read_by_name_and_become_the_objects_of_json() -> None:
    found = RunResults.of({"targets": [_TARGET], "elastic": _elastic([0.5, None]), "compactions": []})
    row = found.targets[0]
    assert (row.size, row["size"], row.get("size"), dict(row)) == (4, 4, 4, _TARGET)
    assert row == _TARGET
    assert row != {**_TARGET, "size": 5}
    with pytest.raises(KeyError, match="from_json"):
        row["from_json"]
    assert found.elastic is not None
    assert [point["loss"] for point in found.elastic["curve"]] == [0.5, None]
    saved = json.dumps(found.facts())
    # The names stand in one order, so that reports of different versions can be compared line by line.
    assert json.dumps(_TARGET) in saved
    assert json.dumps(_elastic([0.5, None])) in saved


def test_names_of_another_version_are_left_out() -> None:
    found = RunResults.of({"targets": [{**_TARGET, "later": 1}]})
    assert found.targets == [_TARGET]
