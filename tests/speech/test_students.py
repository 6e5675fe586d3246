"""The baselines and the driver of benchmarks/ablations.py, on a teacher that trains in no time."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from ablations import compare
from l0prune_speech.formats.checkpoint import from_encoder
from l0prune_speech.formats.dphubert import to_dphubert
from l0prune_speech.groups import encoder_groups
from l0prune_speech.modules import SpeechEncoder
from l0prune_speech.options import SpeechOptions
from l0prune_speech.teachers import load_teacher
from students.baselines import BEGINNINGS, schedule
from students.beginnings import size_of
from students.entries import BASELINES, SPARSITIES, all_entries, chosen
from students.figures import draw_methods, draw_sizes
from students.low_rank import Pair, factored, multiplied_out, truncated
from students.making import Comparison, make
from students.one_shot import magnitudes, taylor_terms
from students.scoring import Probes, scored
from students.summary import best_baseline, lead, table
from students.thinning import Thinned
from torch import nn

import l0prune
from l0prune import ConfigError, RunConfig, RunError, Task
from l0prune.counting import parameters
from l0prune.files import read_json
from l0prune.training import Stage

Make = Callable[..., SpeechEncoder]
LAYOUT = {
    "extractor_conv_layer_config": [(16, 10, 5), (16, 4, 4), (16, 4, 4), (16, 4, 4)],
    "encoder_embed_dim": 32,
    "encoder_num_heads": 4,
    "encoder_ff_interm_features": 96,
    "encoder_pos_conv_kernel": 8,
}


@pytest.fixture
def comparison(make_encoder: Make, tmp_path: Path) -> Comparison:
    to_dphubert(from_encoder(make_encoder(**LAYOUT)), tmp_path / "teacher.pth")
    (tmp_path / "clips").mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).normal(size=33_000 + 500 * number)
        soundfile.write(tmp_path / f"clips/{number:02}.wav", 0.1 * noise, 16_000)
    speech = {"teacher": str(tmp_path / "teacher.pth"), "data": [str(tmp_path / "clips")]}
    settings = {
        "precision": "float32",
        "joint": {"steps": 4, "warmup_steps": 1},
        "further": {"steps": 2, "warmup_steps": 1},
        "controller": {"warmup_steps": 2},
        "speech": {**speech, "batch_seconds": 5.0, "evaluation_seconds": 5.0, "workers": 0},
    }
    return Comparison(folder=tmp_path / "students", settings=settings)


def prepared(comparison: Comparison, entry: str = "full") -> tuple[Task, RunConfig]:
    found = all_entries(comparison.config())[entry]
    config = comparison.config(found, seed=0)
    plugin = Thinned(l0prune.get_plugin("speech"), found.data_every)
    return plugin.prepare(l0prune.build(SpeechOptions, config.options), config), config


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_trained_at_its_budget_and_opens_as_a_teacher(comparison: Comparison, name: str) -> None:
    facts = make(comparison, all_entries(comparison.config())[name], seed=0)
    assert 0.98 * facts["budget"] <= facts["parameters"] <= facts["budget"]
    assert facts["budget"] == int(facts["parameters_before"] * 0.25)
    assert facts["steps"] == 6
    # Predicting layers is another loss than matching them.
    assert (facts["loss"] is None) == (name == "distilhubert")
    assert facts["own_loss"] < facts["loss_at_the_cut"]
    opened = load_teacher(facts["path"]).encoder
    if name == "low-rank":
        assert parameters(opened) == facts["parameters_before"]
        assert facts["macs"] > 0
    else:
        assert parameters(opened) == facts["parameters"]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("share", [0.4, 0.75])
def test_budgets_are_met_at_other_sizes(comparison: Comparison, name: str, share: float) -> None:
    task, config = prepared(comparison)
    budget = int(share * parameters(task.objective.student))
    student = BEGINNINGS[name](task, config, budget).student
    assert 0.98 * budget <= parameters(student) <= budget
    assert torch.isfinite(student.hidden_states(torch.randn(1, 4000))[-1]).all()


def test_distilhubert_holds_its_teachers_first_layers(comparison: Comparison) -> None:
    task, config = prepared(comparison)
    teacher = task.objective.student
    beginning = BEGINNINGS["distilhubert"](task, config, parameters(teacher) // 2)
    student = beginning.student
    assert len(student.encoder.transformer.layers) == 2
    assert beginning.mode == "prediction"
    assert beginning.layers == (1, 2, 3)
    own, theirs = (
        model.get_submodule("encoder.transformer.layers.1.feed_forward.intermediate_dense").weight
        for model in (student, teacher)
    )
    norms = {tuple(row) for row in theirs[:, :4].tolist()}
    assert len(own) < len(theirs)
    assert all(tuple(row) in norms for row in own[:, :4].tolist())
    assert (
        len(BEGINNINGS["distilhubert"](task, config, parameters(teacher) * 9 // 10).student.encoder.transformer.layers)
        == 3
    )


def test_thin_is_narrow_everywhere(comparison: Comparison) -> None:
    task, config = prepared(comparison)
    student = BEGINNINGS["thin"](task, config, parameters(task.objective.student) // 4).student
    made = student.config
    share = made["encoder_embed_dim"] / LAYOUT["encoder_embed_dim"]
    assert share < 1
    assert made["encoder_num_layers"] == 3
    assert made["extractor_conv_layer_config"][0][0] == round(16 * share)
    assert made["encoder_ff_interm_features"] / LAYOUT["encoder_ff_interm_features"] == pytest.approx(share, abs=0.25)
    assert size_of(made) == parameters(student)


def test_pairs_multiplied_out_are_the_same_network(make_encoder: Make) -> None:
    encoder = make_encoder(**LAYOUT)
    student = factored(encoder, parameters(encoder) // 3).eval()
    pairs = [module for module in student.modules() if isinstance(module, Pair)]
    # Three convolutions between channels, the projection, and six matrices in each of three layers.
    assert len(pairs) == 3 + 1 + 18
    whole, waveforms = multiplied_out(student), torch.randn(2, 4000)
    assert not any(isinstance(module, Pair) for module in whole.modules())
    assert whole.state_dict().keys() == encoder.state_dict().keys()
    for expected, got in zip(student.hidden_states(waveforms), whole.hidden_states(waveforms), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(12, 9), nn.Conv1d(4, 9, 3, stride=2, bias=False)])
def test_truncation_loses_what_the_singular_values_say(layer: nn.Linear | nn.Conv1d) -> None:
    values = torch.linalg.svdvals(layer.weight.flatten(1))
    for rank in (1, 4, 9):
        whole = truncated(layer, rank).multiplied_out()
        lost = (whole.weight - layer.weight).norm()
        torch.testing.assert_close(lost, values[rank:].norm(), rtol=1e-4, atol=1e-5)
    inputs = torch.randn(2, 12) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 20)
    torch.testing.assert_close(truncated(layer, 9)(inputs), layer(inputs), rtol=1e-4, atol=1e-5)


def test_importances_are_torch_prunings_on_the_methods_groups(comparison: Comparison) -> None:
    task, config = prepared(comparison)
    student, groups = task.objective.student, task.groups
    number = [group.name for group in groups].index("encoder.transformer.layers.1.feed_forward.units")
    ends = np.cumsum([group.units for group in groups])[:-1]
    block = student.get_submodule("encoder.transformer.layers.1.feed_forward")
    enters, leaves = block.intermediate_dense.weight.detach(), block.output_dense.weight.detach()
    by_hand = enters.square().sum(1) + leaves.square().sum(0)
    scores = magnitudes(student, groups)
    np.testing.assert_allclose(np.split(scores, ends)[number], by_hand / by_hand.mean(), rtol=1e-5)
    assert np.array_equal(scores, magnitudes(student, groups))
    terms = taylor_terms(task, config)
    assert np.array_equal(terms, taylor_terms(task, config))
    assert (terms >= 0).all()
    chance = np.random.default_rng(0).random(len(scores))
    orders = [np.argsort(values).tolist() for values in (scores, terms, chance)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert all(parameter.grad is None for parameter in student.parameters())


def test_a_copy_without_dropout_has_no_taylor_expansion(comparison: Comparison) -> None:
    settings = l0prune.config.merge(comparison.settings, {"speech": {"dropout": False}})
    task, config = prepared(Comparison(folder=comparison.folder, settings=settings))
    with pytest.raises(ConfigError, match="no loss to expand"):
        taylor_terms(task, config)


def test_what_is_there_is_not_made_again(comparison: Comparison) -> None:
    notes: list[str] = []
    first = compare(comparison, ["full", "random"], [0], None, notes.append)
    assert len(notes) == 2
    again = compare(comparison, ["random", "full"], [0], None, notes.append)
    assert len(notes) == 2
    assert again == first
    json.dumps(first, allow_nan=False)
    full, random = first["entries"]
    assert [full["name"], random["name"]] == ["full", "random"]
    assert full["parameters"] <= random["seeds"][0]["budget"]
    (both,) = compare(comparison, ["random"], [0, 1], None, notes.append)["entries"]
    assert len(notes) == 3
    assert both["loss"]["values"][0] == random["loss"]["values"][0] != both["loss"]["values"][1]
    other = l0prune.config.merge(comparison.settings, {"joint": {"steps": 5}})
    with pytest.raises(RunError, match="other settings"):
        compare(Comparison(folder=comparison.folder, settings=other), ["random"], [0], None, notes.append)


class Interrupting(l0prune.Observer):
    """Breaks a run off in its first stage."""

    def record(self, record: l0prune.Record) -> None:
        if record.step == 3:
            raise KeyboardInterrupt


def often_saved(comparison: Comparison, folder: Path) -> Comparison:
    settings = l0prune.config.merge(comparison.settings, {"checkpoint_minutes": 0.0, "log_every": 1})
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


def test_less_data_leaves_what_is_held_out(comparison: Comparison) -> None:
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

    monkeypatch.setattr(l0prune, "evaluate", evaluate, raising=False)
    monkeypatch.setattr(l0prune, "EvaluationSettings", SimpleNamespace, raising=False)
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
    text = table(rows, references, TASKS)
    assert [line.split()[0] for line in text.splitlines()[1:]] == [
        *("embedded", "full", "random", "taylor", "full-50", "chance")
    ]
    assert "90.0 ± 2.0" in text
    results = {"tasks": TASKS, "entries": rows, "references": references, "target_sparsity": 0.75}
    assert draw_sizes(results, tmp_path / "sizes.png")
    assert draw_methods(results, tmp_path / "methods.png")
    for name in ("sizes.png", "methods.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert not draw_sizes({**results, "entries": rows[:3]}, tmp_path / "none.png")


def test_units_of_wavlm_are_chosen_too(make_encoder: Make) -> None:
    encoder = make_encoder(**LAYOUT, encoder_num_buckets=8, encoder_max_distance=16)
    groups = encoder_groups(encoder)
    assert len(magnitudes(encoder, groups)) == sum(group.units for group in groups)
    student = factored(encoder, parameters(encoder) // 2)
    waveforms = torch.randn(1, 4000)
    torch.testing.assert_close(
        multiplied_out(student).hidden_states(waveforms)[-1], student.hidden_states(waveforms)[-1], rtol=1e-4, atol=1e-5
    )
