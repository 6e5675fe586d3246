"""compress() with a caller's own task: a perceptron with one group."""

import json
import math
import random
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptron_task import SETTINGS, WIDTH, Fit, Watch, make_task, network
from torch import Tensor, nn

import l0prune
from l0prune.plugin import UnitKind
from l0prune.size import Metric, SizeModel, Subject, Target, register_metric
from l0prune.size.metric import Cut, Facts


def test_a_projected_run_is_at_its_target_at_each_step_and_shrinks_meanwhile(tmp_path: Path) -> None:
    projected = {"kind": "projected", "warmup_steps": 12, "look_steps": 3, "settle_steps": 16}
    compaction = {"every_steps": 2, "patience": 2, "least_share": 0.0}
    settings = SETTINGS | {"controller": projected, "compaction": compaction}
    watch = Watch()
    report = l0prune.compress(make_task(), settings=settings, out=tmp_path / "run", observer=watch)
    gaps = [abs(record.sparsity - record.target) for record in watch.records if record.stage == "joint"]
    assert len(gaps) == 30
    assert max(gaps) < 2e-3
    assert report.compactions
    assert report.sparsity >= 0.6
    assert report.expected_sparsity_at_cut == pytest.approx(0.6, abs=2e-3)


@pytest.mark.usefixtures("rendered")
def test_whole_run(tmp_path: Path) -> None:
    task, watch = make_task(), Watch()
    report = l0prune.compress(task, settings=SETTINGS, out=tmp_path / "run", observer=watch)
    assert watch.stages == [("joint", 30, 0), ("further", 8, 0)]
    assert [(record.stage, record.step) for record in watch.records] == [
        *(("joint", step) for step in range(1, 31)),
        *(("further", step) for step in range(1, 9)),
    ]
    unit, rest = 10 + 1 + 3, 3
    budget = math.floor(0.4 * (WIDTH * unit + rest))
    kept = (budget - rest) // unit
    assert report.params_after == kept * unit + rest
    assert report.kept_units == {"hidden": {"units": WIDTH, "kept": kept}}
    assert report.distill_loss_after_removal == pytest.approx(report.distill_loss_before_removal, rel=1e-5)
    assert report.max_relative_difference <= 1e-5
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == report.to_json()
    assert (tmp_path / "run" / "architecture.png").read_bytes().startswith(b"\x89PNG")
    student = l0prune.load(tmp_path / "run", network)
    inputs = torch.randn(3, 10)
    with torch.no_grad():
        assert torch.equal(student(inputs), task.objective.student.eval()(inputs))
    with pytest.raises(l0prune.L0PruneError, match=r"l0prune\.load\(.*, build\)"):
        l0prune.load(tmp_path / "run")


def test_without_an_observer_the_logger_hears_of_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="l0prune"):
        report = l0prune.compress(make_task(facts={"data": "noise"}), settings=SETTINGS, out=tmp_path / "run")
    said = [record.getMessage() for record in caplog.records if record.name == "l0prune"]
    assert "data: noise" in said
    assert "joint stage (distil and prune): 30 steps" in said
    assert any(line.startswith("cut: ") for line in said)
    assert said[-1].startswith(f"{report.params_after:,} of {report.params_before:,} parameters are left")


def test_a_task_names_its_kinds_of_unit_in_all_pictures(tmp_path: Path) -> None:
    kind = UnitKind(title="Hidden units", axis="layer")
    report = l0prune.compress(make_task(kinds={"unit": kind}), settings=SETTINGS, out=tmp_path / "run")
    assert report.kinds == {"unit": {"title": "Hidden units", "axis": "layer"}}
    first = l0prune.write_report([tmp_path / "run"]).figures[0]
    kept = report.kept_units["hidden"]
    assert first["title"] == f"Hidden units: {kept['kept']} of {kept['units']} kept"


def test_the_cut_goes_by_what_was_learned(tmp_path: Path) -> None:
    """Not by the gates as they were when something first asked for the selection."""

    class Early(Watch):
        def prepared(self, task, gated, config, folder) -> None:
            super().prepared(task, gated, config, folder)
            task.observe(gated.eval().model)

    watch = Early()
    l0prune.compress(make_task(), settings=SETTINGS, out=tmp_path / "run", observer=watch)
    plan = json.loads((tmp_path / "run" / "model.json").read_text())["plan"]
    kept = torch.zeros(WIDTH, dtype=torch.bool)
    kept[plan["kept"]["hidden"]] = True
    assert kept.tolist() == watch.at_the_cut["kept"].tolist()
    scores = watch.at_the_cut["scores"]
    assert scores[kept].min() > scores[~kept].max()
    beginning = l0prune.GatedModel(network(), make_task().groups, target_sparsity=0.6).gates.select()
    assert kept.tolist() != beginning.tolist()


def test_no_further_stage_and_nothing_held_out(tmp_path: Path) -> None:
    settings = {**SETTINGS, "further": {"steps": 0, "learning_rate": 1e-3}}
    report = l0prune.compress(make_task(evaluation=()), settings=settings, out=tmp_path / "run")
    assert report.distill_loss_final is None
    assert report.stage_seconds["further"] == 0


def test_the_target_may_count_multiply_accumulates(tmp_path: Path) -> None:
    report = l0prune.compress(make_task(), settings={**SETTINGS, "metric": "macs"}, out=tmp_path / "run")
    # Four examples through both layers; parameters have biases beside.
    assert report.macs_before == 4 * (10 * WIDTH + WIDTH * 3)
    assert report.sparsity == 1 - report.macs_after / report.macs_before
    assert report.sparsity >= 0.6
    assert report.macs_before * 0.4 - report.macs_after < 4 * (10 + 3)


class Measured(Metric):
    """Units, which it looks at once more at the cut."""

    name, noun, measured_at_cut = "measured", "units", True

    def size(self, subject: Subject) -> SizeModel:
        return SizeModel(subject.groups, {((0, 1),): 1}, counts=self.noun)

    def meet(self, cut: Cut, target: Target, subject: Subject) -> Facts:
        return {"units_at_the_cut": int(cut.gates.select().sum()), "round_to": 1}

    def left(self, target: Target, kept: np.ndarray, facts: Mapping[str, Any]) -> float:
        assert facts["units_at_the_cut"] == kept.sum()
        return super().left(target, kept, facts)


def test_the_report_holds_what_a_metric_of_ones_own_measures_at_the_cut(tmp_path: Path) -> None:
    register_metric(Measured())
    run, settings = tmp_path / "run", {**SETTINGS, "metric": "measured"}
    with pytest.raises(l0prune.L0PruneError, match="interrupted"):
        l0prune.compress(make_task(), settings=settings, out=run, observer=Watch(stop_at=("further", 2)))
    report = l0prune.compress(make_task(), settings=settings, out=run, resume=True)
    assert report.metric_facts == {"units_at_the_cut": report.kept_units["hidden"]["kept"]}
    assert (report.round_to, report.sparsity) == (1, 0.6)
    assert json.loads((run / "report.json").read_text())["metric_facts"] == report.metric_facts


def test_a_cut_far_from_the_target_is_told_and_reported(tmp_path: Path) -> None:
    watch = Watch()
    slow = {**SETTINGS, "controller": {"learning_rate": 1e-3, "warmup_steps": 30}}
    report = l0prune.compress(make_task(), settings=slow, out=tmp_path / "slow", observer=watch)
    assert "never asked for in full: controller.warmup_steps 30 of 30 steps" in watch.notes[0]
    assert any("expected sparsity of 0.0" in note and "the target is 0.600" in note for note in watch.notes)
    assert report.expected_sparsity_at_cut < 0.1
    near = Watch()
    fast = {**SETTINGS, "joint": {"steps": 120, "learning_rate": 1e-2}}
    report = l0prune.compress(make_task(), settings=fast, out=tmp_path / "fast", observer=near)
    assert not any("expected sparsity" in note for note in near.notes)
    assert report.expected_sparsity_at_cut > 0.5


def test_versions_in_the_report_are_the_cores_and_those_that_the_task_names(tmp_path: Path) -> None:
    short = {**SETTINGS, "joint": {"steps": 3, "learning_rate": 1e-2}, "further": {"steps": 1, "learning_rate": 1e-2}}
    plain = l0prune.compress(make_task(), settings=short, out=tmp_path / "plain").versions
    assert plain.keys() == {"python", "l0prune", "torch", "torch-pruning", "numpy", "safetensors"}
    named = make_task(packages=("torchaudio", "a-package-that-nobody-has"))
    more = l0prune.compress(named, settings=short, out=tmp_path / "more").versions
    assert more == {**plain, "torchaudio": version("torchaudio")}
    assert json.loads((tmp_path / "more/report.json").read_text())["versions"] == more


def _generators() -> list[Any]:
    """What the global random generators hold, as far as it can be compared."""
    name, keys, *rest = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), name, np.asarray(keys).tolist(), rest]


class _Draws(Fit):
    """Draws from all generators, as augmentations do."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> l0prune.Losses:
        inputs, labels = batch
        return super().forward((inputs + 0.01 * (random.random() + np.random.rand()), labels))


def test_the_callers_generators_are_left_as_they_were(tmp_path: Path) -> None:
    task = make_task()
    task = make_task(objective=_Draws(task.objective.student))
    before = _generators()
    l0prune.compress(task, settings={**SETTINGS, "seed": 5}, out=tmp_path / "run")
    assert _generators() == before
    with pytest.raises(l0prune.Interrupted):
        l0prune.compress(make_task(), settings=SETTINGS, out=tmp_path / "cut", observer=Watch(("joint", 3)))
    assert _generators() == before
    # What the run draws hangs on its seed alone.
    torch.manual_seed(77)
    again = l0prune.compress(make_task(), settings=SETTINGS, out=tmp_path / "cut", resume=True)
    once = l0prune.compress(make_task(), settings=SETTINGS, out=tmp_path / "whole")
    assert again.losses_final == once.losses_final
    assert again.distill_loss_final == once.distill_loss_final


def test_a_compiled_run_leaves_the_compiler_and_the_warnings_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling = nn.Module.compile
    # Without the compiler proper, whose code may round otherwise.
    monkeypatch.setattr(nn.Module, "compile", lambda self, **more: compiling(self, **more, backend="aot_eager"))
    filters, limits = list(warnings.filters), []

    class Look(Watch):
        def record(self, record: Any) -> None:
            limits.append(torch.compiler.config.recompile_limit)
            super().record(record)

    short = {"joint": {"steps": 3, "learning_rate": 1e-2}, "further": {"steps": 2, "learning_rate": 1e-2}}
    settings = {**SETTINGS, "compile": True, **short}
    with torch.compiler.config.patch(recompile_limit=2):
        l0prune.compress(make_task(), settings=settings, out=tmp_path / "run", observer=Look())
        assert limits == [4] * 5
        assert torch.compiler.config.recompile_limit == 2
        assert warnings.filters == filters
        with pytest.raises(l0prune.Interrupted):
            l0prune.compress(make_task(), settings=settings, out=tmp_path / "cut", observer=Look(("joint", 2)))
        assert torch.compiler.config.recompile_limit == 2
        assert warnings.filters == filters
