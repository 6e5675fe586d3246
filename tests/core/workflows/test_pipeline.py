"""compress() with a caller's own task: a perceptron with one group."""

import itertools
import json
import math
import pickle
import pickletools
import random
import re
import signal
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l0prune
from l0prune.plugin import UnitKind

SETTINGS: dict[str, Any] = {
    "target_sparsity": 0.6,
    "precision": "float32",
    "device": "cpu",
    "log_every": 1,
    "joint": {"steps": 30, "learning_rate": 1e-2},
    "further": {"steps": 8, "learning_rate": 1e-2},
    "controller": {"learning_rate": 0.2, "warmup_steps": 5},
}
WIDTH = 40


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, WIDTH), nn.Dropout(0.1), nn.ReLU(), nn.Linear(WIDTH, 3))


class Fit(l0prune.Objective):
    def forward(self, batch: tuple[Tensor, Tensor]) -> l0prune.Losses:
        inputs, labels = batch
        return l0prune.Losses(total=nn.functional.cross_entropy(self.student(inputs), labels), amount=len(inputs))


def batches(position: int) -> Iterator[tuple[Tensor, Tensor]]:
    for number in itertools.count(position):
        inputs = torch.randn(32, 10, generator=torch.Generator().manual_seed(number))
        yield inputs, inputs[:, :3].argmax(1)


def make_task(**changes: Any) -> l0prune.Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = network()
    index = l0prune.consecutive(WIDTH)
    ends = (
        ("0.weight", 0, l0prune.Role.PRODUCES),
        ("0.bias", 0, l0prune.Role.PRODUCES),
        ("3.weight", 1, l0prune.Role.CONSUMES),
    )
    places = tuple(l0prune.Place(tensor=tensor, dim=dim, role=role, index=index) for tensor, dim, role in ends)
    inputs = torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    task: dict[str, Any] = {
        "objective": Fit(student),
        "groups": [l0prune.PruneGroup(name="hidden", kind="unit", units=WIDTH, places=places)],
        "batches": batches,
        "observe": lambda model: model(inputs),
        "evaluation": list(itertools.islice(batches(10**6), 2)),
    }
    return l0prune.Task(**{**task, **changes})


class Watch(l0prune.Observer):
    """Remembers what it saw; interrupts at a step."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.stop_at, self.records, self.stages, self.notes = stop_at, [], [], []
        self.at_the_cut: dict[str, Any] = {}

    def prepared(self, task, gated, config, folder) -> None:
        self.gated = gated

    def stage_begins(self, name, steps, done) -> None:
        self.stages.append((name, steps, done))

    def record(self, record) -> None:
        self.records.append(record)
        if (record.stage, record.step) == self.stop_at:
            signal.raise_signal(signal.SIGTERM)

    def note(self, text) -> None:
        self.notes.append(text)
        self.at_the_cut = {"kept": self.gated.gates.select(), "scores": self.gated.gates.log_alpha.detach().clone()}


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


@pytest.mark.parametrize("kind", ["lagrangian", "projected"])
@pytest.mark.parametrize("stop_at", [("joint", 1), ("joint", 17), ("joint", 30), ("further", 1), ("further", 8)])
def test_resumed_equals_uninterrupted(stop_at: tuple[str, int], kind: str, tmp_path: Path) -> None:
    settings = SETTINGS | {"controller": {**SETTINGS["controller"], "kind": kind}}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = l0prune.compress(make_task(), settings=settings, out=whole)
    with pytest.raises(l0prune.Interrupted) as caught:
        l0prune.compress(make_task(), settings=settings, out=parts, observer=Watch(stop_at))
    assert caught.value.signal_number == signal.SIGTERM
    second = l0prune.compress(make_task(), settings=settings, out=parts, resume=True)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert second.losses_final == first.losses_final
    assert second.distill_loss_final == first.distill_loss_final
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (whole, parts)]
    for one, other in zip(*rows, strict=True):
        for key in ("position", "stage", "step", "loss", "gradient_norm", "sparsity", "multipliers", "learning_rate"):
            assert one[key] == other[key]


def test_other_data_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(l0prune.Interrupted):
        l0prune.compress(make_task(data_digest="one"), settings=SETTINGS, out=run, observer=Watch(("joint", 5)))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(l0prune.RunError, match="teacher or data differ from those the run began with"):
        l0prune.compress(make_task(data_digest="other"), settings=SETTINGS, out=run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    l0prune.compress(make_task(data_digest="one"), settings=SETTINGS, out=run, resume=True)


def test_a_batch_that_cannot_be_read_costs_nothing_that_was_done(tmp_path: Path) -> None:
    def damaged(position: int) -> Iterator[Any]:
        for number, batch in enumerate(batches(position), start=position):
            if number == 7:
                raise l0prune.DataError("clip cannot be decoded")
            yield batch

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    l0prune.compress(make_task(), settings=SETTINGS, out=whole)
    with pytest.raises(l0prune.DataError, match="cannot be decoded"):
        l0prune.compress(make_task(batches=damaged), settings=SETTINGS, out=parts)
    watch = Watch()
    l0prune.compress(make_task(), settings=SETTINGS, out=parts, resume=True, observer=watch)
    assert watch.stages[0] == ("joint", 30, 7)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_no_further_stage_and_nothing_held_out(tmp_path: Path) -> None:
    settings = {**SETTINGS, "further": {"steps": 0, "learning_rate": 1e-3}}
    report = l0prune.compress(make_task(evaluation=()), settings=settings, out=tmp_path / "run")
    assert report.distill_loss_final is None
    assert report.stage_seconds["further"] == 0


def test_loss_that_is_never_finite_ends_the_run(tmp_path: Path) -> None:
    class Hopeless(Fit):
        def forward(self, batch):
            losses = super().forward(batch)
            return l0prune.Losses(total=losses.total * math.nan)

    task = make_task()
    with pytest.raises(l0prune.TrainingError, match="not finite"):
        l0prune.compress(
            make_task(objective=Hopeless(task.objective.student), evaluation=()),
            settings=SETTINGS,
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run" / "report.json").exists()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [None] * 9


def test_data_that_ends_is_named(tmp_path: Path) -> None:
    task = make_task(batches=lambda position: itertools.islice(batches(position), 5))
    with pytest.raises(l0prune.TrainingError, match="data ended before the stage: joint step 5"):
        l0prune.compress(task, settings=SETTINGS, out=tmp_path / "run")


def test_group_that_is_not_exact_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    task = make_task()
    group = task.groups[0]
    wrong = l0prune.PruneGroup(name="wrong", kind="unit", units=WIDTH, places=group.places[1:])
    with pytest.raises(l0prune.ProofError, match="not exact: wrong"):
        l0prune.compress(make_task(groups=[wrong]), settings={**SETTINGS, "target_sparsity": 0.2}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class TestSettings:
    def test_layers_in_order(self) -> None:
        speech = l0prune.get_plugin("speech")
        first = {"target_sparsity": 0.5, "joint": {"steps": 100}}
        second = {"joint": {"learning_rate": 0.5}, "speech": {"workers": 0}}
        run = l0prune.resolve(speech, first, second)
        assert (run.recipe, run.target_sparsity) == ("quick", 0.5)
        assert (run.joint.steps, run.joint.learning_rate, run.joint.warmup_steps) == (100, 0.5, 40)
        assert run.options["workers"] == 0

    def test_layer_names_the_recipe_and_the_argument_wins(self) -> None:
        speech = l0prune.get_plugin("speech")
        named = {"recipe": "dphubert-base"}
        assert l0prune.resolve(speech, named).joint.steps == 50_000
        assert l0prune.resolve(speech, named, recipe="quick").joint.steps == 400

    @pytest.mark.parametrize("recipe", ["quick", "dphubert-base", "dphubert-large"])
    def test_description_reads_back(self, recipe: str, tmp_path: Path) -> None:
        speech = l0prune.get_plugin("speech")
        run = l0prune.resolve(speech, recipe=recipe)
        path = tmp_path / "settings.toml"
        path.write_text(l0prune.write_toml(l0prune.describe(run)), encoding="utf-8")
        assert l0prune.resolve(speech, l0prune.read_toml(path)) == run

    def test_toml_round_trip(self, tmp_path: Path) -> None:
        values = {
            "plain": 1,
            "float": 1e-30,
            "infinite": [math.inf, -math.inf],
            "flag": True,
            "text": 'é😀 "q" \\ \n \t \x7f',
            "a.b c": {"ünder": {"x": [[1, 2], ["y"]]}, "": 0},
        }
        path = tmp_path / "settings.toml"
        path.write_text(l0prune.write_toml(values), encoding="utf-8")
        assert l0prune.read_toml(path) == values


def test_the_target_may_count_multiply_accumulates(tmp_path: Path) -> None:
    report = l0prune.compress(make_task(), settings={**SETTINGS, "metric": "macs"}, out=tmp_path / "run")
    # Four examples through both layers; parameters have biases beside.
    assert report.macs_before == 4 * (10 * WIDTH + WIDTH * 3)
    assert report.sparsity == 1 - report.macs_after / report.macs_before
    assert report.sparsity >= 0.6
    assert report.macs_before * 0.4 - report.macs_after < 4 * (10 + 3)


class Stop(Exception):
    """What comes in the middle of a run."""


class Stopping(Fit):
    """Fails at a pass, counted from 1."""

    def __init__(self, student: nn.Module, at: int) -> None:
        super().__init__(student)
        self.left = at

    def forward(self, batch: tuple[Tensor, Tensor]) -> l0prune.Losses:
        self.left -= 1
        if not self.left:
            raise Stop
        return super().forward(batch)


# In the joint stage; at the evaluation before the cut, and after it.
@pytest.mark.parametrize("at", [3, 31, 33])
def test_no_gates_are_left_on_the_network_after_an_error(at: int, tmp_path: Path) -> None:
    task = make_task()
    student = task.objective.student
    names = list(student.state_dict())
    compaction = {"compaction": {"enabled": False}}
    with pytest.raises(Stop):
        l0prune.compress(make_task(objective=Stopping(student, at)), settings=SETTINGS | compaction, out=tmp_path / "1")
    assert list(student.state_dict()) == names
    l0prune.compress(task, settings=SETTINGS, out=tmp_path / "2")
    assert list(student.state_dict()) == names


def test_no_gates_are_left_on_the_network_after_a_refused_group(tmp_path: Path) -> None:
    task = make_task()
    student, group = task.objective.student, task.groups[0]
    names = list(student.state_dict())
    wrong = l0prune.PruneGroup(name="wrong", kind="unit", units=WIDTH, places=group.places[1:])
    refused = make_task(objective=task.objective, groups=[wrong])
    with pytest.raises(l0prune.ProofError):
        l0prune.compress(refused, settings={**SETTINGS, "target_sparsity": 0.2}, out=tmp_path / "run")
    assert list(student.state_dict()) == names


def test_an_error_once_units_are_gone_says_to_make_the_task_anew(tmp_path: Path) -> None:
    watch = Watch()
    # The fifth pass of the further stage; four are evaluations at the cut.
    task = make_task(objective=Stopping(network(), 30 + 4 + 5))
    with pytest.raises(Stop):
        l0prune.compress(task, settings=SETTINGS, out=tmp_path / "run", observer=watch)
    assert "make the task anew" in watch.notes[-1]


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


@pytest.mark.parametrize("wrong", [3, nn.Linear(2, 2), Watch])
def test_what_is_no_plugin_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(l0prune.PluginError, match=r"not a plugin .*a Task"):
        l0prune.compress(wrong, out=tmp_path / "run")


_MODULES = ("l0prune", "l0prune_speech", "l0prune_cli", __name__.rpartition(".")[2])


def _module_paths(content: bytes) -> list[str]:
    """Dotted paths into our packages, or into this file; as pickle writes them, a module and a name are two strings."""
    names = "|".join(_MODULES).encode()
    return sorted({found.decode() for found in re.findall(rb"(?:" + names + rb")\.[A-Za-z_]\w*", content)})


@pytest.mark.parametrize("compaction", [False, True])
@pytest.mark.parametrize("stop_at", [("joint", 20), ("further", 3)])
def test_what_a_run_saves_knows_no_file_of_ours(stop_at: tuple[str, int], compaction: bool, tmp_path: Path) -> None:
    """So that a run which began before files moved, or names changed, goes on after it."""
    settings = {**SETTINGS, "compaction": {"enabled": compaction}, "keep_checkpoints": 9}
    with pytest.raises(l0prune.Interrupted):
        l0prune.compress(make_task(), settings=settings, out=tmp_path, observer=Watch(stop_at))
    saved = sorted((tmp_path / "checkpoints").glob("*.pt"))
    assert saved
    for path in saved:
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
        state = torch.load(path, weights_only=True)
        assert {type(value) for value in state.values()} <= {dict, OrderedDict, str, int, float, list, type(None)}
        with zipfile.ZipFile(path) as archive:
            pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        imported = {
            argument.partition(" ")[0].partition(".")[0]
            for code, argument, _ in pickletools.genops(pickled)
            if code.name in ("GLOBAL", "INST") and isinstance(argument, str)
        }
        assert imported <= {"torch", "collections"}
        assert "STACK_GLOBAL" not in {code.name for code, _, _ in pickletools.genops(pickled)}
    l0prune.compress(make_task(), settings=settings, out=tmp_path, resume=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"model.json", "model.safetensors", "report.json", "metrics.jsonl"} <= {path.name for path in files}
    assert {path.name: found for path in files if (found := _module_paths(path.read_bytes()))} == {}


def test_module_paths_are_found() -> None:
    pickled = pickle.dumps(l0prune.GateConfig(), protocol=2)
    assert _module_paths(pickled)
    assert _module_paths(b'{"kind": "l0prune.gates.Gates"}') == ["l0prune.gates"]
    assert _module_paths(b'{"format": "l0prune", "plugin": "speech"}') == []


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
