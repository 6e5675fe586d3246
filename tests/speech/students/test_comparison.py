"""benchmarks/ablations.py: students made once and gone on with, entries, scores, table and pictures."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import command
from l0bench.students.baselines import schedule
from l0bench.students.earlier import Earlier
from l0bench.students.entries import BASELINES, SPARSITIES, all_entries, chosen
from l0bench.students.figures import draw_methods, draw_sizes
from l0bench.students.making import Comparison, make
from l0bench.students.scoring import Probes, reference_place, scored
from l0bench.students.summary import aligned, best_baseline, cells, lead, markdown

import l0prune
from l0prune import ConfigError, DataError, RunConfig, RunError, Task
from l0prune.support.files import read_json, write_json
from l0prune.training.stage import Stage

ablations = command("ablations")
compare = ablations.compare
Prepared = Callable[..., tuple[Task, RunConfig]]


def test_what_is_there_is_not_made_again(comparison: Comparison) -> None:
    notes: list[str] = []
    first = compare(comparison, ["full", "random"], [0], None, note=notes.append)
    assert len(notes) == 2
    again = compare(comparison, ["random", "full"], [0], None, note=notes.append)
    assert len(notes) == 2
    assert again == first
    json.dumps(first, allow_nan=False)
    full, random = first["entries"]
    assert [full["name"], random["name"]] == ["full", "random"]
    assert full["parameters"] <= random["seeds"][0]["budget"]
    (both,) = compare(comparison, ["random"], [0, 1], None, note=notes.append)["entries"]
    assert len(notes) == 3
    assert both["loss"]["values"][0] == random["loss"]["values"][0] != both["loss"]["values"][1]
    made = compare(comparison, ["random", "full", "thin"], [0, 1, 2], None, only_made=True, note=notes.append)
    assert len(notes) == 3
    seeds = {r["name"]: [facts["seed"] for facts in r["seeds"]] for r in made["entries"]}
    assert seeds == {"full": [0], "random": [0, 1]}
    # Nor is anything scored: not what is held against, either.
    unscored = compare(comparison, ["random"], [0], Probes(), only_made=True, note=pytest.fail)
    assert unscored["references"] == []
    assert unscored["entries"][0]["scores"] == {}
    other = l0prune.support.merge(comparison.settings, {"joint": {"steps": 5}})
    with pytest.raises(RunError, match="other settings"):
        compare(Comparison(folder=comparison.folder, settings=other), ["random"], [0], None, note=notes.append)


def test_students_share_what_the_teacher_says(comparison: Comparison, tmp_path: Path) -> None:
    names = ["full", "random", "tenth-of-data"]
    alone = compare(comparison, names, [0], None, note=lambda note: None)
    sharing = replace(comparison, folder=tmp_path / "sharing", cache=tmp_path / "cache", cache_gigabytes=0.1)
    kept = []
    for name in names:
        together = compare(sharing, [name], [0], None, note=lambda note: None)["entries"][0]
        expected = next(r for r in alone["entries"] if r["name"] == name)
        assert together["loss"] == expected["loss"]
        kept.append(len(list((tmp_path / "cache").rglob("*.npz"))))
    # The second has the batches of the first, one on other data has its own.
    assert 0 < kept[0] == kept[1] < kept[2]
    # With and without, they are the same students.
    assert compare(replace(comparison, cache=sharing.cache), names, [0], None, note=pytest.fail) == alone


class Interrupting(l0prune.Observer):
    """Breaks a run off in its first stage."""

    def record(self, record: l0prune.Record) -> None:
        if record.step == 3:
            raise KeyboardInterrupt


def often_saved(comparison: Comparison, folder: Path) -> Comparison:
    settings = l0prune.support.merge(comparison.settings, {"checkpoint_minutes": 0.0, "log_every": 1})
    return Comparison(folder=folder, settings=settings)


def test_an_interrupted_run_goes_on(comparison: Comparison, tmp_path: Path) -> None:
    entry = all_entries(comparison.config())["full"]
    whole = make(often_saved(comparison, tmp_path / "whole"), entry, 0)
    parted = often_saved(comparison, tmp_path / "parted")
    run, settings = parted.place(entry, 0) / "run", {**parted.settings, "seed": 0}
    with pytest.raises(KeyboardInterrupt):
        l0prune.compress("speech", recipe="quick", settings=settings, out=run, observer=Interrupting())
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000001.pt", "step-00000002.pt"]
    assert make(parted, entry, 0)["losses"] == whole["losses"]
    assert not (run / "checkpoints").exists()


def test_an_interrupted_baseline_goes_on(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = all_entries(comparison.config())["thin"]
    whole = make(often_saved(comparison, tmp_path / "whole"), entry, 0)
    parted, steps = often_saved(comparison, tmp_path / "parted"), []
    update = Stage.update

    def breaking(stage: Stage, *arguments: Any) -> Any:
        steps.append(stage.step)
        if steps == [0, 1, 2]:
            raise KeyboardInterrupt
        return update(stage, *arguments)

    monkeypatch.setattr(Stage, "update", breaking)
    with pytest.raises(KeyboardInterrupt):
        make(parted, entry, 0)
    faster = l0prune.support.merge(parted.settings, {"joint": {"learning_rate": 0.01}})
    with pytest.raises(RunError, match="other settings"):
        make(replace(parted, settings=faster), entry, 0)
    assert make(parted, entry, 0)["losses"] == whole["losses"]
    assert steps == [0, 1, 2, 2, 3, 4, 5]
    assert not (parted.place(entry, 0) / "checkpoints").exists()


def test_every_entry_has_settings_of_a_run(comparison: Comparison) -> None:
    config = comparison.config()
    entries = all_entries(config)
    for entry in entries.values():
        made = comparison.config(entry, seed=3)
        assert made.seed == 3
        assert entry.name == "full" or entry.is_baseline or entry.data_every > 1 or made != comparison.config(seed=3)
    same = comparison.config(entries["joint-only-same-steps"])
    assert same.joint.steps + same.further.steps == config.joint.steps + config.further.steps
    assert schedule(config).steps == config.joint.steps + config.further.steps
    sizes = {comparison.config(entry).target_sparsity for entry in chosen(["sizes"], config)}
    assert sizes == set(SPARSITIES)
    names = [entry.name for entry in chosen(["all"], config)]
    assert len(names) == len(set(names))
    assert {*BASELINES, "full", "full-90", "no-step-2"} <= set(names)
    assert [entry.name for entry in chosen(["random", "full"], config)] == ["full", "random"]
    with pytest.raises(ConfigError, match="randem"):
        chosen(["randem"], config)


def test_less_data_leaves_what_is_held_out(comparison: Comparison, prepared: Prepared) -> None:
    all_of_it, _ = prepared(comparison)
    some, _ = prepared(comparison, "tenth-of-data")
    assert len(some.batches.clips) == 1 < len(all_of_it.batches.clips)
    assert set(some.batches.clips) < set(all_of_it.batches.clips)
    for one, other in zip(some.evaluation, all_of_it.evaluation, strict=True):
        assert torch.equal(one, other)
    assert some.data_digest != all_of_it.data_digest


def test_scores_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def evaluate(models: list[str], *, plugin: str, settings: Any, note: Any) -> Any:
        calls.append((models, plugin, settings.against))
        return SimpleNamespace(to_json=lambda: {"scores": [{"task": "keyword", "values": (0.5,)}]})

    monkeypatch.setattr(l0prune, "evaluate", evaluate)
    first = scored("student.pth", tmp_path / "scores.json", Probes())
    assert (
        first
        == scored("student.pth", tmp_path / "scores.json", Probes())
        == read_json(tmp_path / "scores.json")["evaluation"]
    )
    assert calls == [(["student.pth"], "speech", "student.pth")]
    scored("student.pth", tmp_path / "scores.json", Probes(seeds=(4,)))
    assert len(calls) == 2


def _row(name: str, start: str, sparsity: float, accuracy: float, error: float) -> dict[str, Any]:
    def spread(mean: float) -> dict[str, Any]:
        return {"values": [mean - 0.014, mean + 0.014], "mean": mean, "deviation": 0.02}

    return {
        "name": name,
        "start": start,
        "settings": {"target_sparsity": sparsity} if sparsity != 0.75 else {},
        "data_every": 1,
        "target_sparsity": sparsity,
        "parameters": 4e6 * (1 - sparsity),
        "macs": 1e8,
        "loss": spread(1 - accuracy),
        "scores": {"keyword": spread(accuracy), "phone": spread(error)},
    }


TASKS = {
    "keyword": {"metric": "accuracy", "higher_is_better": True, "chance": 0.1},
    "phone": {"metric": "error", "higher_is_better": False, "chance": 1.0},
}


@pytest.mark.usefixtures("rendered")
def test_who_is_ahead_and_how_it_looks(tmp_path: Path) -> None:
    full, rival = _row("full", "method", 0.75, 0.9, 0.3), _row("random", "random", 0.75, 0.8, 0.25)
    ahead = lead(full, rival, TASKS)
    assert ahead == {"keyword": pytest.approx(5), "phone": pytest.approx(-2.5)}
    single = {**rival, "scores": {"keyword": {"values": [0.8], "mean": 0.8, "deviation": 0.0}}}
    assert lead(full, single, TASKS) == {}
    rows = [full, rival, _row("taylor", "taylor", 0.75, 0.85, 0.2), _row("full-50", "method", 0.5, 0.95, 0.2)]
    assert best_baseline(rows, TASKS, 0.75) == "taylor"
    assert best_baseline(rows, {}, 0.75) == "taylor"
    assert best_baseline(rows[:1], TASKS, 0.75) is None
    references = [{"name": "embedded", "parameters": 5e6, "scores": {"keyword": full["scores"]["keyword"]}}]
    references[0]["scores"]["phone"] = full["scores"]["phone"]
    lines = cells(rows, references, TASKS)
    names = ["embedded", "full", "random", "taylor", "full-50", "chance"]
    assert [line.split()[0] for line in aligned(lines).splitlines()[1:]] == names
    assert [line.split()[1] for line in markdown(lines).splitlines()[2:]] == names
    assert "90.0 ± 2.0" in aligned(lines)
    assert "| 90.0 ± 2.0 |" in markdown(lines)
    results = {"tasks": TASKS, "entries": rows, "references": references, "target_sparsity": 0.75}
    assert draw_sizes(results, tmp_path / "sizes.png")
    assert draw_methods(results, tmp_path / "methods.png")
    for name in ("sizes.png", "methods.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert not draw_sizes({**results, "entries": rows[:3]}, tmp_path / "none.png")


def test_results_of_before_are_gone_on_with(comparison: Comparison, tmp_path: Path) -> None:
    first = compare(comparison, ["full", "random"], [0], None, note=lambda note: None)
    file = tmp_path / "before.json"
    write_json(file, first)
    elsewhere = replace(comparison, folder=tmp_path / "elsewhere")
    earlier = Earlier.read(file, elsewhere, ())
    assert compare(elsewhere, ["full", "random"], [0], None, earlier=earlier, note=pytest.fail) == first
    notes: list[str] = []
    (both,) = compare(elsewhere, ["random"], [0, 1], None, earlier=earlier, note=notes.append)["entries"]
    assert len(notes) == 1
    assert [seed["loss"] for seed in both["seeds"]] == both["loss"]["values"]
    assert both["loss"]["values"][0] == first["entries"][1]["loss"]["mean"]
    # What is here counts before what is there.
    invented = {**first["entries"][1], "seeds": [{**seed, "loss": 9.0} for seed in both["seeds"]]}
    write_json(file, {**first, "entries": [invented]})
    (mixed,) = compare(
        elsewhere, ["random"], [0, 1], None, earlier=Earlier.read(file, elsewhere, ()), note=pytest.fail
    )["entries"]
    assert mixed["loss"]["values"] == [9.0, both["loss"]["values"][1]]
    # An entry that means something else now is another student.
    write_json(file, {**first, "entries": [{**invented, "data_every": 2}]})
    assert Earlier.read(file, elsewhere, ()).student(all_entries(elsewhere.config())["random"], 0) is None
    other = replace(elsewhere, settings=l0prune.support.merge(comparison.settings, {"joint": {"steps": 5}}))
    with pytest.raises(RunError, match="results are of other settings"):
        Earlier.read(file, other, ())
    write_json(file, {**first, "probe_seeds": [0, 1]})
    with pytest.raises(RunError, match="results are of other probe seeds"):
        Earlier.read(file, elsewhere, (0, 1, 2))
    file.write_text("[]")
    with pytest.raises(DataError, match="not a file of results"):
        Earlier.read(file, elsewhere, ())


def test_scores_of_other_labelled_data_are_left_out(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(comparison, ["full"], [0], None, note=lambda note: None)
    teacher = comparison.config().options["teacher"]
    elsewhere = replace(comparison, folder=tmp_path / "elsewhere")
    task = {"data": "labelled", "minutes": 40.0, "higher_is_better": True}
    scores = [{"task": "keyword", "values": [0.5, 0.6]}]
    evaluation = {"models": {teacher: {"parameters": 5}}, "tasks": {"keyword": task}, "scores": scores}
    asked = {"tasks": [], "data": [], "seeds": [0, 1, 2]}
    write_json(reference_place(elsewhere.folder, teacher), {"asked": asked, "evaluation": evaluation})
    (entry,) = first["entries"]
    entry = {**entry, "seeds": [{**facts, "scores": {"keyword": 0.4}} for facts in entry["seeds"]]}
    before = {**first, "probe_seeds": [0, 1, 2], "entries": [entry], "references": [{"name": "filterbanks"}]}

    def gone_on_with(minutes: float, note: Callable[[str], None], *, only_made: bool = True) -> dict[str, Any]:
        file = tmp_path / "before.json"
        write_json(file, {**before, "tasks": {"keyword": {**task, "minutes": minutes}}})
        earlier = Earlier.read(file, elsewhere, (0, 1, 2))
        return compare(elsewhere, ["full"], [0], Probes(), earlier=earlier, only_made=only_made, note=note)

    same = gone_on_with(40.0, pytest.fail)
    assert same["entries"][0]["scores"]["keyword"]["mean"] == 0.4
    assert [reference["name"] for reference in same["references"]] == [teacher, "filterbanks"]
    notes: list[str] = []
    other = gone_on_with(35.0, notes.append)
    assert len(notes) == 1
    assert other["entries"][0]["scores"] == {}
    assert other["entries"][0]["loss"] == first["entries"][0]["loss"]
    assert [reference["name"] for reference in other["references"]] == [teacher]
    # One without scores is made where they are asked for, and is the same student.
    monkeypatch.setattr(
        ablations, "scored", lambda model, *_others: {**evaluation, "models": {model: {"parameters": 5}}}
    )
    reference_place(elsewhere.folder, teacher).unlink()
    again = gone_on_with(35.0, notes.append, only_made=False)
    assert again["entries"][0]["scores"]["keyword"]["mean"] == pytest.approx(0.55)
    assert again["entries"][0]["loss"] == first["entries"][0]["loss"]
