"""Distillation terms of a recipe from end to end: runs, runs that go on, exports, and what is refused."""

import json
import signal
from pathlib import Path

import pytest
import torch
from l0prune_speech.distillation import all_terms
from l0prune_speech.encoder import build_encoder
from safetensors import safe_open
from tiny_teacher import TEACHER

import l0prune
import l0prune.adapters.terminal
from l0prune.config import RunConfig

OF_ENCODERS = [name for name, term in all_terms().items() if term.between != "logits"]
FEW = ["--unit-count", 20, "--layer-clusters", 2]


@pytest.fixture(scope="module")
def every_term(bench, tmp_path_factory) -> Path:
    """The settings with all terms, layers with learned weights, and a teacher whose answers are kept."""
    folder = tmp_path_factory.mktemp("terms")
    terms = "\n".join(f"{name} = 0.5" for name in OF_ENCODERS)
    more = (
        "every_layer = true\nunit_layers = [1, 2]\nlayer_clusters = 2\nunit_count = 20\nlayer_weighting = 'learned'\n"
        f"crop_epochs = 1\ncache = {json.dumps(str(folder / 'cache'))}\n"
    )
    path = folder / "terms.toml"
    path.write_text(f"{bench.settings.read_text()}{more}[speech.terms]\n{terms}\n[compaction]\nevery_steps = 1\n")
    return path


@pytest.fixture(scope="module")
def whole(bench, every_term, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    bench.compress("--out", run, config=every_term).succeeded()
    return run


def test_a_run_with_every_term_is_told_by_its_parts(whole) -> None:
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        others = {name for name in OF_ENCODERS if all_terms()[name].between != "states"}
        assert set(row["parts"]) == {"layer 0", "layer 1", "layer 2", *others}
    report = json.loads((whole / "report.json").read_text())
    # A cut changes no term.
    assert report["distill_loss_after_removal"] == pytest.approx(report["distill_loss_before_removal"], rel=1e-4)
    # Heads of units, projections and embeddings are not of the student.
    dense = set(build_encoder(TEACHER).state_dict())
    with safe_open(whole / "model.safetensors", "pt") as file:
        assert {*file.keys()} <= dense
    assert set(l0prune.load(whole).state_dict()) <= dense


@pytest.mark.parametrize(("stage", "step"), [("joint", 4), ("further", 2)])
def test_a_run_with_every_term_goes_on_bit_for_bit(
    stage, step, bench, every_term, whole, tmp_path, monkeypatch
) -> None:
    run, shown = tmp_path / "run", l0prune.adapters.terminal.TerminalObserver.record

    def record(self, record) -> None:
        shown(self, record)
        if (record.stage, record.step) == (stage, step):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(l0prune.adapters.terminal.TerminalObserver, "record", record)
        assert bench.compress("--out", run, config=every_term).code == 130

    def again(*_: object, **_named: object) -> None:
        raise AssertionError("units are those of the checkpoint")

    with monkeypatch.context() as patch:
        patch.setattr("l0prune_speech.distillation.objective.find_structure", again)
        bench.compress("--out", run, "--resume", config=every_term).succeeded()
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    one, other = (json.loads((place / "report.json").read_text()) for place in (run, whole))
    assert one["distill_loss_final"] == other["distill_loss_final"]


def test_units_that_contradict_a_run_are_refused(bench, every_term, tmp_path, monkeypatch) -> None:
    run = tmp_path / "run"

    def stop(self, record) -> None:
        if record.step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(l0prune.adapters.terminal.TerminalObserver, "record", stop)
        assert bench.compress("--out", run, config=every_term).code == 130
    outcome = bench.compress("--out", run, "--resume", "--unit-count", 12, config=every_term)
    outcome.refused("settings differ", "speech.unit_count", "got 12", "expected 20")
    saved = sorted(path.name for path in (run / "checkpoints").iterdir())
    monkeypatch.setattr("l0prune_speech.distillation.objective.TeacherUnits.__init__", _narrower)
    outcome = bench.compress("--out", run, "--resume", config=every_term)
    # What is to be pruned has been shown by then.
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    words = "the saved units contradict the run: speech.terms (got 2 x 20 x 32, expected 2 x 19 x 32)"
    assert outcome.err.startswith(f"l0prune: error: {words}; ")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == saved


def _narrower(self, layers, count, width) -> None:
    """As if another version made fewer units of the same settings."""
    from torch import nn

    nn.Module.__init__(self)
    self.layers, self.count = tuple(layers), count - 1
    self.register_buffer("centroids", torch.zeros(len(self.layers), count - 1, width))
    self.register_buffer("known_mark", torch.tensor(False))
    self._known, self._means, self._waiting, self._frames = False, [], [[] for _ in self.layers], 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--matched-layers", "3"], ["matched layer does not exist", "got [3]", "expected 0 to 2"]),
        (["--matched-layers", "1", "--matched-layers", "1"], ["a layer is named twice", "got [1, 1]"]),
        (["--every-layer", "--matched-layers", "1"], ["every layer, and some: speech.matched_layers"]),
        (["--set", "speech.terms.units=1", "--unit-layers", "3", *FEW], ["layer does not exist: speech.unit_layers"]),
        (
            ["--set", "speech.terms.units=1", "--unit-count", "500"],
            [
                "too few frames for the units: speech.unit_count",
                "frames for 500 units",
                "expected 5000 or more",
                "lower",
            ],
        ),
        (["--set", "speech.terms.masked_units=1", "--unit-count", "1"], ["unit_count out of range", "2 or more"]),
        (["--set", "speech.terms.cluster_means=1", "--layer-clusters", "4"], ["no such number of clusters", "1 to 3"]),
        (["--set", "speech.terms.cluster_means=1", "--mode", "prediction"], ["cluster_means", "got no means"]),
        (["--set", "speech.terms.gram_step=-1"], ["terms.gram_step out of range", "got -1"]),
        (["--set", "speech.terms.gramstep=1"], ["no such term: speech.terms.gramstep", "did you mean 'gram_step'?"]),
        (["--set", "speech.terms.l1=0", "--set", "speech.terms.cosine=0"], ["nothing to minimise", "got weights of 0"]),
        (["--set", "speech.terms.logits=1"], ["nothing to compare here: speech.terms.logits", "no head", "--task"]),
        (["--set", "speech.terms.attention=1", "--matched-layers", "0"], ["speech.terms.attention", "above 0"]),
        (["--set", "speech.terms.attention=1", "--compile"], ["a compiled layer does not show its attention"]),
        (["--mask-probability", "0"], ["mask_probability out of range", "got 0"]),
        (["--masked-share", "1"], ["masked_share out of range", "got 1"]),
        (["--layer-weighting", "best"], ["layer_weighting", "got best", "equal, learned"]),
    ],
)
def test_refused(flags, words, bench, out) -> None:
    bench.compress("--out", out, *flags).refused(*words)
    assert not out.exists()


def test_units_need_their_library(bench, out, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    outcome = bench.compress("--out", out, "--set", "speech.terms.units=1", *FEW)
    outcome.refused("units and clusters of layers need scikit-learn", "pip install 'l0prune[units]'")


@pytest.mark.parametrize("recipe", ["dphubert-base", "dphubert-large", "dpwavlm-base-plus"])
def test_published_recipes_have_the_published_objective(recipe) -> None:
    config: RunConfig = l0prune.resolve(l0prune.get_plugin("speech"), recipe=recipe)
    from l0prune_speech.options import SpeechOptions

    options = SpeechOptions(**config.options)
    assert options.term_weights() == {"l1": 1.0, "l2": 0.0, "cosine": 1.0}
    assert (options.mode, options.layer_weighting, options.projections) == ("layers", "equal", True)
    assert tuple(options.matched_layers) in ((0, 4, 8, 12), (0, 8, 16, 24))
    assert not options.every_layer
