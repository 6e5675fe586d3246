"""A streaming student from settings to exports: what is written down, what is exported, what is refused."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Outcome
from l0prune_speech.formats import open_stream
from l0prune_speech.streaming import streaming
from safetensors.torch import save_file

import l0prune
from l0prune import relative_difference

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


@pytest.mark.parametrize("to", ["onnx-streaming", "torch.export-streaming"])
def test_exports_hear_chunk_by_chunk_what_the_student_hears(
    run: Path, l0prune_call: Call, tmp_path: Path, to: str
) -> None:
    file = tmp_path / f"student.{to}"
    said = json.loads(l0prune_call("export", run, "--to", to, "--out", file, "--json").succeeded().out)
    assert said["max_relative_difference"] <= 1e-5
    assert said["notes"][-1].endswith("chunk by chunk")
    own, exported = streaming(l0prune.load(run), batch=3), open_stream(file, batch=3)
    audio = 0.1 * torch.randn(3, 8000)
    for piece in audio.split(1100, -1):
        one, two = own(piece), exported(piece)
        assert one.shape == two.shape
        assert not one.numel() or relative_difference([one], [two]) <= 1e-5
    assert relative_difference([own.flush()], [exported.flush()]) <= 1e-5


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
    assert [line.split("ms ")[-1] for line in hear(run, clip, "--head", head)].count("a") == 1
    with pytest.raises(SystemExit, match="error: not a CTC head"):
        hear(run, clip, "--head", clip)


@pytest.mark.parametrize("to", ["huggingface", "dphubert", "s3prl"])
def test_classes_that_know_no_chunks_are_refused(run: Path, l0prune_call: Call, tmp_path: Path, to: str) -> None:
    out = tmp_path / "export"
    words = ("cannot hold this network", "do not apply the chunks of a streaming network", "onnx-streaming")
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


def test_the_latency_of_a_chunk_is_a_target(bench, tmp_path: Path) -> None:
    flags = ("--metric", "latency", "--target-speedup", 1.05, "--out", tmp_path / "run", "--json")
    report = json.loads(bench.compress(*CHUNKS, *flags).succeeded().out)
    assert report["latency_after_ms"] > 0
    assert report["latency_before_ms"] > 0
