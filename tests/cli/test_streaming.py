"""A streaming student from settings to exports: what is written down, what is exported, what is refused."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome
from l0prune_speech.formats import load_teacher, open_stream
from l0prune_speech.streaming import streaming
from safetensors.torch import save_file

import l0prune
from l0prune import relative_difference
from l0prune.support import build

Call = Callable[..., Outcome]
CHUNKS = ("--set", "speech.streaming.chunk_ms=100", "--set", "speech.streaming.right_ms=20")


@pytest.fixture(scope="module")
def run(bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streaming") / "run"
    outcome = bench.compress(*CHUNKS, "--out", folder).succeeded()
    assert "chunks of 100 ms, 1280 ms to the left, 20 ms to the right" in " ".join(
        outcome.err.split() + outcome.out.split()
    )
    return folder


def test_the_saved_network_and_its_settings_hold_the_chunks(run: Path) -> None:
    streams = json.loads((run / "model.json").read_text())["architecture"]["streaming"]
    assert streams.pop("variance") == pytest.approx(0.01, rel=0.2)
    assert streams == {"chunk_frames": 5, "left_frames": 64, "right_frames": 1}
    settings = l0prune.read_toml(run / "config.toml")
    assert settings["speech"]["streaming"] == {"chunk_ms": 100.0, "left_ms": 1280.0, "right_ms": 20.0}
    report = json.loads((run / "report.json").read_text())
    assert report["sparsity"] >= 0.75
    assert report["max_relative_difference"] <= 1e-5


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, l0prune.Export]]:
    folder = tmp_path_factory.mktemp("exported")
    files = {"onnx-streaming": folder / "student.onnx", "torch.export-streaming": folder / "student.pt2"}
    return {to: (file, l0prune.export(run, to=to, out=file)) for to, file in files.items()}


@pytest.mark.parametrize("to", ["onnx-streaming", "torch.export-streaming"])
def test_exports_hear_chunk_by_chunk_what_the_student_hears(
    run: Path, exported: dict[str, tuple[Path, Any]], to: str
) -> None:
    file, said = exported[to]
    assert said.max_relative_difference <= 1e-5
    assert said.notes[-1].endswith("chunk by chunk")
    own, other = streaming(load_teacher(str(run)).encoder, batch=3), open_stream(file, batch=3)
    audio = 0.1 * torch.randn(3, 8000)
    for piece in audio.split(1100, -1):
        one, two = own(piece), other(piece)
        assert one.shape == two.shape
        assert not one.numel() or relative_difference([one], [two]) <= 1e-5
    assert relative_difference([own.flush()], [other.flush()]) <= 1e-5


def test_the_snippet_of_the_page_runs_without_this_package(
    run: Path, exported: dict[str, tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "streaming.md"
    (snippet,) = re.findall(r"```python\n(# onnx-streaming.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names = {"audio": 0.1 * torch.randn(9000)}
    monkeypatch.chdir(exported["onnx-streaming"][0].parent)
    exec(snippet, names)
    found = torch.cat([torch.from_numpy(states) for states in names["states"]], 1)
    expected = streaming(load_teacher(str(run)).encoder)(names["audio"])
    assert found.shape == expected.shape
    assert relative_difference([expected], [found]) <= 1e-5


def test_a_damaged_export_is_refused(exported: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    whole = exported["onnx-streaming"][0].read_bytes()
    half = len(whole) // 2
    (tmp_path / "damaged.onnx").write_bytes(whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :])
    with pytest.raises(l0prune.RunError, match="the checksum is wrong"):
        open_stream(tmp_path / "damaged.onnx")
    (tmp_path / "half.pt2").write_bytes(exported["torch.export-streaming"][0].read_bytes()[:1000])
    with pytest.raises(l0prune.DataError, match="cannot open the program"):
        open_stream(tmp_path / "half.pt2")
    with pytest.raises(l0prune.DataError, match="cannot read the program"):
        open_stream(tmp_path / "nowhere.onnx")


def test_the_example_hears_a_file_piece_by_piece(
    run: Path, bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[2] / "docs" / "examples" / "stream_file.py"
    head, clip = tmp_path / "ctc.safetensors", bench.clips / "clip0.wav"
    weight, bias = torch.zeros(3, 32), torch.tensor([0.0, 1.0, 0.0])
    save_file({"weight": weight, "bias": bias}, head, metadata={"labels": '["-", "a", "|"]'})

    def hear(*arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["stream_file.py", *map(str, arguments)])
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    said, *lines = hear(run, clip, "--piece-ms", 50)
    assert said == "a frame is known 125 ms after its chunk began, or sooner"
    # 2 s of audio have 99 frames.
    assert len(lines) == 20
    assert "known   1980 ms" in lines[-1]
    assert all("length" in line for line in lines)
    # The same symbol over and over is one.
    assert "".join(line.split(" ms ")[-1] for line in hear(run, clip, "--head", head)[1:]).split() == ["a"]
    with pytest.raises(SystemExit, match="error: not a CTC head"):
        hear(run, clip, "--head", clip)


@pytest.mark.parametrize("to", ["torch.export", "torchscript"])
def test_programs_of_whole_clips_hold_the_masks(run: Path, tmp_path: Path, to: str) -> None:
    """On clips of a single chunk, too; they are among those on which every export is compared."""
    assert l0prune.export(run, to=to, out=tmp_path / "student").max_relative_difference <= 1e-5


@pytest.mark.parametrize("to", ["huggingface", "dphubert", "s3prl"])
def test_classes_that_know_no_chunks_are_refused(run: Path, l0prune_call: Call, tmp_path: Path, to: str) -> None:
    out = tmp_path / "export"
    words = ("cannot hold this network", "does not hold the chunks of a streaming network", "onnx-streaming")
    l0prune_call("export", run, "--to", to, "--out", out).refused(*words)
    assert not out.exists()


def test_a_student_that_hears_whole_clips_has_no_chunks_to_export(finished, l0prune_call: Call, tmp_path: Path) -> None:
    arguments = ("export", finished.folder, "--to", "torch.export-streaming", "--out", tmp_path / "student.pt2")
    l0prune_call(*arguments).refused("it hears whole clips", "speech.streaming.chunk_ms")


def test_a_program_of_whole_clips_is_no_stream(onnx_file: Path) -> None:
    with pytest.raises(l0prune.DataError, match=r"the ONNX model takes no chunks.*--to onnx-streaming"):
        open_stream(onnx_file)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["chunk_ms=50"], ("not a whole number of frames: speech.streaming.chunk_ms", "got 50", "40 or 60")),
        (["chunk_ms=5"], ("speech.streaming.chunk_ms", "got 5", "20")),
        (["chunk_ms=0"], ("chunk_ms out of range: speech.streaming", "above 0")),
        (["left_ms=100"], ("setting is missing: speech.streaming.chunk_ms",)),
        (["chunk_ms=100", "right=1"], ("no such setting: speech.streaming.right",)),
    ],
)
def test_settings_are_refused_in_one_line(bench, tmp_path: Path, settings: list[str], words: tuple[str, ...]) -> None:
    flags = [flag for setting in settings for flag in ("--set", f"speech.streaming.{setting}")]
    bench.compress(*flags, "--out", tmp_path / "run").refused(*words)
    assert not (tmp_path / "run").exists()


def test_attention_is_not_compared_across_chunks(bench, tmp_path: Path) -> None:
    flags = (*CHUNKS, "--set", "speech.terms.attention=1")
    bench.compress(*flags, "--out", tmp_path / "run").refused("speech.terms.attention", "streaming student")


def test_a_streaming_student_can_be_compressed_further(run: Path, bench, tmp_path: Path) -> None:
    flags = ("--teacher", run, "--set", "joint.steps=0", "--set", "joint.warmup_steps=0", "--set", "further.steps=0")
    bench.compress(*flags, "--target-sparsity", 0.2, "--out", tmp_path / "again").succeeded()
    architecture = json.loads((tmp_path / "again" / "model.json").read_text())["architecture"]
    assert architecture["streaming"]["chunk_frames"] == 5
    bench.compress(*flags, *CHUNKS, "--out", tmp_path / "other").refused("the network streams already")


def test_the_latency_of_a_run_is_that_of_a_chunk(bench) -> None:
    """And the times of other chunks are not taken from a cache."""
    plugin, forms = l0prune.get_plugin("speech"), set()
    for chunk_ms in (100, 200):
        settings = {"speech": {"streaming": {"chunk_ms": chunk_ms}}}
        config = l0prune.resolve(plugin, l0prune.read_toml(bench.settings), settings)
        task = plugin.prepare(build(plugin.options, config.options), config)
        assert task.deploy is not None
        last, states, frames, *_ = task.observe_load(task.deploy(task.objective.student))
        assert last.shape == (1, chunk_ms // 20, 32)
        assert states.shape == (3, *last.shape)
        assert frames.tolist() == [chunk_ms // 20]
        forms.add(task.deploy.form)
    assert len(forms) == 2
