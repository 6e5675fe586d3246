"""Exports: each opened as its users would, equal to the network; nothing half-written, nothing unproved in place."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import l0prune_speech
import pytest
import torch
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder, build_encoder
from l0prune_speech.formats.checkpoint import Checkpoint, from_encoder
from l0prune_speech.formats.program import Program
from l0prune_speech.formats.registry import FORMATS, format_named, register_format
from l0prune_speech.formats.teachers import load_teacher
from safetensors.torch import save_file
from torch import Tensor

import l0prune
from l0prune import ConfigError, DataError, GatedModel, ProofError, RunError, relative_difference
from l0prune.formats import onnx_file

SHAPES = [(6, 10, 5), (7, 3, 2), (6, 3, 2), (5, 3, 2), (6, 3, 2), (6, 2, 2), (6, 2, 2)]
LARGE = {
    "extractor_mode": "layer_norm",
    "extractor_conv_bias": True,
    "encoder_layer_norm_first": True,
    "normalize_waveform": True,
}
RELATIVE = {"encoder_num_buckets": 32, "encoder_max_distance": 40}
KINDS: dict[str, dict[str, Any]] = {
    "hubert": {},
    "hubert-large": LARGE,
    "wavlm": {**RELATIVE, "family": "wavlm"},
    "wavlm-large": {**LARGE, **RELATIVE, "family": "wavlm"},
}
STREAMING = ("onnx-streaming", "torch.export-streaming")
"""Of networks that hear chunks alone: tests/cli/test_streaming.py."""
EMPTIED = ("layers.0.attention", "layers.1.feed_forward", "layers.2.attention")


Made = tuple[Path, Path, l0prune.Export]
"""A run directory, the place of its export, and what was said of it."""


@pytest.fixture
def make_run(encoder_config: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Makes a run directory with a student at 0.75 sparsity, two attention blocks and an FFN emptied."""

    def make(kind: str, home: Path = tmp_path) -> Path:
        torch.manual_seed(0)
        layout = {"extractor_conv_layer_config": SHAPES, "encoder_embed_dim": 16, "encoder_num_heads": 4}
        # Wide enough that three quarters of the parameters can go.
        config = {**encoder_config, **layout, "encoder_ff_interm_features": 200, **KINDS[kind]}
        encoder = build_encoder(config).eval()
        gated = GatedModel(encoder, encoder_groups(encoder), target_sparsity=0.75).eval()
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.4 + 0.1)
            gated.gates.log_alpha.normal_(0, 2)
            start = 0
            for group in gated.groups:
                if any(name in group.name for name in EMPTIED):
                    gated.gates.log_alpha[start : start + group.units] = -20
                start += group.units
        student, plan = gated.pruned()
        kept = sum(p.numel() for p in student.parameters())
        assert 0.2 < kept / gated.parameter_model.total <= 0.25
        assert sum(isinstance(module, l0prune.Bypassed) for module in student.modules()) >= 3
        folder = home / kind
        l0prune.save(student, plan, folder, plugin="speech", architecture=config)
        (folder / "report.json").write_text(json.dumps({"teacher": "small", "params_after": kept, "sparsity": 0.75}))
        return folder

    return make


@pytest.fixture(scope="module")
def _exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], Made]]:
    """Where `exported` keeps what it made."""
    return tmp_path_factory.mktemp("exports"), {}


@pytest.fixture
def exported(
    make_run: Callable[..., Path], _exports: tuple[Path, dict[tuple[str, str], Made]]
) -> Callable[[str, str], Made]:
    """The student of a kind, exported to a format once for all tests that leave it as it is."""
    home, made = _exports

    def get(kind: str, to: str) -> Made:
        if (kind, to) not in made:
            run = make_run(kind, home / to)
            made[kind, to] = run, run / "exports" / f"{to}{FORMATS[to].suffix}", l0prune.export(run, to=to)
        return made[kind, to]

    return get


@pytest.fixture
def clips() -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([24_000, 15_000])
    return torch.randn(2, 24_000) * (torch.arange(24_000) < lengths[:, None]), lengths


INT8 = [("wavlm-large", "onnx-int8"), ("hubert-large", "onnx-int8-dynamic"), ("wavlm", "torch.export-int8")]
"""Rounding depends on layouts less than names and shapes do; hubert's onnx-int8 is below, calibrated on given clips."""


def check_said(written: l0prune.Export, run: Path, to: str) -> None:
    """Where an export was written, by whom it was opened again, and how near it is."""
    assert written.notes[-1] == f"opened again by {format_named(to).opened_by}"
    place = run / "exports" / f"{to}{FORMATS[to].suffix}"
    assert written.path == str(place)
    assert place.exists()
    if "int8" in to:
        assert written.signal_to_noise_db is not None
        assert written.signal_to_noise_db >= 10
        assert written.max_relative_difference > 1e-5
    else:
        assert written.signal_to_noise_db is None
        assert written.max_relative_difference <= (1e-4 if to == "onnx" else 1e-5)
    assert not list(run.rglob(".*.partial*"))


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        *((kind, to) for to in FORMATS if "int8" not in to and to not in STREAMING for kind in KINDS),
        *INT8,
    ],
)
def test_a_student_goes_out_to_every_format(
    make_run: Callable[..., Path], exported: Callable[[str, str], Made], kind: str, to: str
) -> None:
    if to == "torch.export-int8":
        pytest.importorskip("torchao")
    if to == "diarizen" and kind.startswith("hubert"):
        run = make_run(kind)
        refusal = r"diarizen cannot hold this network: .*family hubert, where DiariZen builds WavLM alone.*dphubert"
        with pytest.raises(ConfigError, match=refusal):
            l0prune.export(run, to=to)
        assert not (run / "exports").exists()
        return
    run, place, written = exported(kind, to)
    check_said(written, run, to)
    if to in ("huggingface", "dphubert", "diarizen", "s3prl"):
        # What can be read again is the same network, whatever the way.
        student, back = (load_teacher(str(path)).encoder for path in (run, place))
        waveforms = torch.randn(1, 9_000)
        with torch.no_grad():
            states = [encoder.hidden_states(waveforms) for encoder in (student, back)]
        assert relative_difference(*states) <= 1e-6


def test_what_int8_says_of_sizes_and_calibration(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("hubert")
    report = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps({**report, "params_before": 4 * report["params_after"]}))
    spoken = Path(l0prune_speech.__file__).parent / "assets" / "speech"
    clips = sorted(spoken.glob("*.ogg"))
    written = l0prune.export(run, to="onnx-int8", calibration=clips[:6])
    check_said(written, run, "onnx-int8")
    assert written.dense_bytes == 4 * (written.float32_bytes or 0) == 16 * report["params_after"]
    assert written.file_bytes == (run / "exports" / "onnx-int8.onnx").stat().st_size
    (note,) = [note for note in written.notes if note.startswith("calibrated on")]
    assert str(clips[0]) in note
    with pytest.raises(DataError, match=r"not enough audio to calibrate on: .*expected 10 s or more.*dynamic"):
        l0prune.export(run, to="onnx-int8", out=tmp_path / "a.onnx", calibration=clips[:1])
    with pytest.raises(ConfigError, match=r"takes no calibration: s3prl .*onnx-int8"):
        l0prune.export(run, to="s3prl", out=tmp_path / "a", calibration=clips[:6])
    assert not list(tmp_path.glob("a*"))


@pytest.mark.parametrize("kind", ["hubert-large", "wavlm"])
def test_programs_run_without_this_package_at_any_length(
    exported: Callable[[str, str], Made], clips: tuple[Tensor, Tensor], tmp_path: Path, kind: str
) -> None:
    made = {to: exported(kind, to) for to in ("torchscript", "torch.export", "onnx")}
    student = l0prune.load(made["onnx"][0])
    assert isinstance(student, SpeechEncoder)
    torch.save(clips, tmp_path / "clips.pt")
    script = """
import sys, torch
clips, states = torch.load(sys.argv[1]), {}
states["torchscript"] = torch.jit.load(sys.argv[2])(*clips)[1]
states["torch.export"] = torch.export.load(sys.argv[3]).module()(*clips)[1]
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[4], providers=["CPUExecutionProvider"])
feeds = {"waveforms": clips[0].numpy(), "lengths": clips[1].numpy()}
states["onnx"] = torch.from_numpy(session.run(["hidden_states"], feeds)[0])
assert not any(name.startswith(("l0prune", "torchaudio")) for name in sys.modules)
torch.save(states, sys.argv[1] + ".states")
"""
    places = [str(place) for _run, place, _said in made.values()]
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "clips.pt"), *places]
    subprocess.run(command, check=True, cwd=tmp_path)
    with torch.no_grad():
        expected = torch.stack(student.hidden_states(clips[0], None, clips[1]))
    for name, states in torch.load(tmp_path / "clips.pt.states").items():
        assert relative_difference(expected, states) <= (1e-4 if name == "onnx" else 1e-5), name


def test_the_upstream_follows_s3prls_interface(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("wavlm-large")
    student = l0prune.load(run)
    assert isinstance(student, SpeechEncoder)
    l0prune.export(run, to="s3prl", out=tmp_path / "upstream")
    for imported_as in ("module of a package", "file beside hubconf.py"):
        if imported_as == "file beside hubconf.py":
            expert = torch.hub.load(str(tmp_path / "upstream"), "l0prune_student", source="local", trust_repo=True)
        else:
            sys.path.insert(0, str(tmp_path))
            try:
                expert = importlib.import_module("upstream.hubconf").l0prune_student(
                    str(tmp_path / "upstream" / "model.pt"), model_config=None, refresh=False
                )
            finally:
                sys.path.remove(str(tmp_path))
        assert expert.get_downsample_rates("hidden_states") == 320
        wavs = [torch.randn(16_000), torch.randn(9_000)]
        with torch.no_grad():
            states = expert.eval()(wavs)["hidden_states"]
            padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
            expected = student.hidden_states(padded, None, torch.tensor([16_000, 9_000]))
        assert isinstance(states, list)
        assert states[0].shape == (2, 49, 16)
        assert relative_difference(expected, states) <= 1e-6
    for name in ("expert", "encoder", "upstream", "upstream.hubconf", "upstream.expert", "upstream.encoder"):
        sys.modules.pop(name, None)


def test_two_upstreams_in_one_process_are_two_networks(make_run: Callable[..., Path], tmp_path: Path) -> None:
    wavs, last = [torch.randn(9_000)], []
    for kind in ("hubert", "hubert-large"):
        run = make_run(kind)
        l0prune.export(run, to="s3prl", out=tmp_path / "upstreams" / kind)
        place = str(tmp_path / "upstreams" / kind)
        upstream = torch.hub.load(place, "l0prune_student", source="local", trust_repo=True)
        with torch.no_grad():
            expected = l0prune.load(run).hidden_states(wavs[0][None])  # type: ignore[operator]
            states = upstream(wavs)["hidden_states"]
        assert relative_difference(expected, states) <= 1e-6
        last.append(states[-1])
    assert not torch.allclose(*last)
    for name in ("expert", "encoder"):
        sys.modules.pop(name, None)


def test_a_network_too_large_for_its_format_is_refused_with_those_that_can_hold_it(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("hubert")
    monkeypatch.setattr(onnx_file, "LARGEST_ONNX", 2**24 + 10_000)
    message = r"onnx cannot hold this network: .* GB of weights.*these can: dphubert, huggingface, .*torchscript"
    with pytest.raises(ConfigError, match=message):
        l0prune.export(run, to="onnx", out=tmp_path / "new" / "student.onnx")
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    for billions, fits in ((0.4, True), (1.0, False)):
        tensors = {"all": torch.empty(round(billions * 1e9), device="meta")}
        assert (format_named("onnx").refuses(Checkpoint(config={}, tensors=tensors)) is None) is fits


def test_the_model_card_holds_the_reports_figures(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("hubert")
    l0prune.export(run, to="huggingface", out=tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text()
    kept = json.loads((run / "report.json").read_text())["params_after"]
    assert f"| parameters | {kept:,} |" in card
    assert "| removed | 75.00% |" in card
    assert "hubert pruned from small" in card
    assert json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())["do_normalize"] is False


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_report_is_named(make_run: Callable[..., Path], tmp_path: Path, content: str) -> None:
    run = make_run("hubert")
    (run / "report.json").write_text(content)
    with pytest.raises(l0prune.RunError, match=r"report\.json"):
        l0prune.export(run, to="dphubert", out=tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_an_export_that_behaves_otherwise_leaves_nothing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run, form = make_run("hubert"), format_named("dphubert")

    def spoiled(checkpoint: Any, path: Path, card: str) -> list[str]:
        name = "encoder.transformer.layers.2.final_layer_norm.bias"
        tensors = {**checkpoint.tensors, name: checkpoint.tensors[name] + 0.01}
        assert form.write is not None
        return form.write(type(checkpoint)(config=checkpoint.config, tensors=tensors), path, card)

    register_format(replace(form, write=spoiled), replace=True)
    with pytest.raises(ProofError, match="the dphubert export does not behave as the network"):
        l0prune.export(run, to="dphubert", out=tmp_path / "new" / "student.pth")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_failing_writer_leaves_nothing(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_settings: object) -> None:
        raise OSError(28, "No space left on device")

    run = make_run("hubert")
    monkeypatch.setattr("l0prune_speech.formats.huggingface.save_file", full)
    with pytest.raises(RunError, match=r"cannot write.*No space left"):
        l0prune.export(run, to="huggingface", out=tmp_path / "new" / "hf")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_is_there_already_is_unharmed(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run, place = make_run("hubert"), tmp_path / "mine.pth"
    place.write_text("mine")
    with pytest.raises(RunError, match="already there"):
        l0prune.export(run, to="dphubert", out=place)
    assert place.read_text() == "mine"


def test_wrong_requests_are_one_line(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("hubert")
    with pytest.raises(ConfigError, match=r"no such format: onyx \(expected diarizen, .*; did you mean 'onnx'"):
        l0prune.export(run, to="onyx")
    with pytest.raises(ConfigError, match="where to"):
        l0prune.export("embedded", to="onnx", plugin="speech")
    with pytest.raises(ConfigError, match="not a run directory"):
        l0prune.export(tmp_path / "missing", to="onnx")
    with pytest.raises(ConfigError, match="no such teacher"):
        l0prune.export(tmp_path / "missing", to="onnx", out=tmp_path / "x.onnx", plugin="speech")


@pytest.mark.parametrize(("to", "package"), [("onnx", "onnxruntime"), ("huggingface", "transformers")])
def test_a_missing_package_is_named_with_its_extra(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, to: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'l0prune\[{to}\]'"):
        l0prune.export(make_run("hubert"), to=to)


def test_folding_weight_norm_leaves_the_network_alone(make_run: Callable[..., Path]) -> None:
    student = l0prune.load(make_run("hubert"))
    assert isinstance(student, SpeechEncoder)
    before = student.state_dict().keys()
    Program(from_encoder(student))
    assert student.state_dict().keys() == before
    student(torch.randn(1, 4_000))


def test_a_teacher_file_is_exported_with_its_figures(encoder_config: dict[str, Any], tmp_path: Path) -> None:
    encoder = build_encoder({**encoder_config, "encoder_ff_interm_features": 12})
    metadata = {"format": "l0prune-speech-teacher", "config": json.dumps(encoder_config), "normalize_waveform": "true"}
    save_file(encoder.state_dict(), tmp_path / "teacher.safetensors", metadata=metadata)
    written = l0prune.export(tmp_path / "teacher.safetensors", to="huggingface", out=tmp_path / "hf", plugin="speech")
    assert written.parameters == sum(p.numel() for p in encoder.parameters())
    assert load_teacher(str(tmp_path / "hf")).encoder.normalize_waveform is True


PAGE = Path(__file__).parents[3] / "docs/how-to/export.md"
SNIPPETS = {
    re.match(r"# ([\w.]+)", block)[1]: block  # type: ignore[index]
    for block in re.findall(r"```python\n(# .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if block.startswith(tuple(f"# {name}" for name in FORMATS))
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore:The given buffer is not writable")
@pytest.mark.parametrize("to", list(SNIPPETS))
def test_the_snippets_of_the_docs_load_each_format(
    exported: Callable[[str, str], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    (run, place, _said), audio = exported("wavlm", to), torch.randn(9_000)
    copy = shutil.copytree if place.is_dir() else shutil.copy
    copy(place, tmp_path / f"student{FORMATS[to].suffix}")
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, "audio": audio}
    with torch.no_grad():
        exec(SNIPPETS[to], names)
        expected = l0prune.load(run).hidden_states(audio[None])  # type: ignore[operator]
    if to == "dphubert":
        assert names["content"]["config"]["encoder_num_layers"] == 3
        return
    last = torch.as_tensor(names["states"][-1])
    assert relative_difference(expected[-1], last) <= 1e-4
    for name in ("expert", "encoder"):
        sys.modules.pop(name, None)


def test_every_format_has_a_snippet() -> None:
    # DiariZen's is DPHuBERT's, and int8 is opened as the float32 of its kind.
    assert {*SNIPPETS, "diarizen", *STREAMING} == {name for name in FORMATS if "int8" not in name}
