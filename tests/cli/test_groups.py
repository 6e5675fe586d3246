"""`l0prune groups`."""

import json
from dataclasses import replace

import pytest

COUNTS = {"conv": 7, "head": 2, "ffn": 2, "attention": 2, "feed_forward": 2}


@pytest.fixture(scope="module")
def rows(bench, l0prune_call):
    outcome = l0prune_call("groups", "--plugin", "speech", "--config", bench.settings, "--json").succeeded()
    assert outcome.err.startswith("data: 6 clips")
    return json.loads(outcome.out)


def test_lists_every_group_proved(rows) -> None:
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == {kind: COUNTS[kind] for kind in ("conv", "head", "ffn")}
    assert all(row["proved"] and not row["reason"] for row in rows)
    assert all(row.keys() == {"name", "kind", "units", "unit_parameters", "proved", "reason"} for row in rows)


def test_costs_by_hand(rows) -> None:
    """Width 32, heads of 8, 8 channels: what a unit takes with it."""
    cost = {(row["kind"], row["unit_parameters"]) for row in rows if row["kind"] != "conv"}
    assert cost == {("head", 3 * (8 * 32 + 8) + 32 * 8), ("ffn", 32 + 1 + 32)}
    convolutions = [row["unit_parameters"] for row in rows if row["kind"] == "conv"]
    # Own kernel over the channels before, norm (first only), and the next layer's input, or the projection's.
    assert convolutions[0] == 10 + 2 + 8 * 3
    assert convolutions[1] == 8 * 3 + 8 * 3
    assert convolutions[-1] == 8 * 2 + 2 + 32


@pytest.mark.parametrize("units", ["conv", "head,attention", "ffn, feed_forward", "attention,feed_forward"])
def test_units(units, bench, l0prune_call) -> None:
    flags = ["--plugin", "speech", "--config", bench.settings, "--units", units, "--json"]
    rows = json.loads(l0prune_call("groups", *flags).succeeded().out)
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        kind.strip(): COUNTS[kind.strip()] for kind in units.split(",")
    }
    assert all(row["proved"] for row in rows)


def test_heads_that_were_left_out_are_told(bench, l0prune_call, monkeypatch) -> None:
    from l0prune_speech import task

    load = task.load_teacher
    notes = ("left out the transcription head",)
    monkeypatch.setattr(task, "load_teacher", lambda name: replace(load(name), notes=notes))
    outcome = l0prune_call("groups", "--plugin", "speech", "--config", bench.settings).succeeded()
    assert "teacher: left out the transcription head" in outcome.err
    assert "left out" not in outcome.out


def test_table_in_a_pipe(rows, bench, l0prune_call) -> None:
    outcome = l0prune_call("groups", "--plugin", "speech", "--config", bench.settings).succeeded()
    lines = outcome.out.splitlines()
    for row in rows:
        assert sum(f" {row['name']} " in line for line in lines) == 1
    assert "\x1b" not in outcome.out


def test_leaves_nothing_behind(bench, l0prune_call, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    l0prune_call("groups", "--plugin", "speech", "--config", bench.settings).succeeded()
    assert list(tmp_path.iterdir()) == []


def test_bad_units(bench, l0prune_call) -> None:
    outcome = l0prune_call("groups", "--plugin", "speech", "--config", bench.settings, "--units", "heads")
    outcome.refused("no such kind of unit: heads", "did you mean 'head'?")
