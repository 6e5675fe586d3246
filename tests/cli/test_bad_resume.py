"""A run that cannot go on as it began is refused; a damaged checkpoint costs the steps since the one before."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch


class Trap:
    """A pickle of this creates a file when it is loaded without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


class TestResume:
    def test_complete_run(self, bench, finished) -> None:
        outcome = bench.compress("--out", finished.folder, "--resume")
        outcome.refused("nothing to resume: the run is complete", str(finished.folder))

    def test_other_settings(self, bench, interrupted, tmp_path) -> None:
        config = tmp_path / "often.toml"
        outcome = bench.compress("--out", interrupted, "--resume", "--target-sparsity", 0.5, config=config)
        outcome.refused("settings differ", ": target_sparsity", "got 0.5", "expected 0.75")
        outcome = bench.compress("--out", interrupted, "--resume", "--units", "ffn", config=config)
        outcome.refused("settings differ", ": speech.units")
        # How often it is saved has no effect on the student.
        assert "checkpoint_minutes" not in bench.settings.read_text()
        bench.compress("--out", interrupted, "--resume").succeeded()

    def test_a_run_of_before_short_clips_were_joined_goes_on_without_them(self, bench, out, tmp_path) -> None:
        folder = shutil.copytree(bench.clips, tmp_path / "clips")
        for number in range(4):
            soundfile.write(folder / f"short{number}.wav", np.zeros(16_000), 16_000)
        given = ("--data", folder, "--out", out)
        settings = bench.compress(*given, "--short-clips", "skip", "--print-config").succeeded().out
        out.mkdir()
        (out / "config.toml").write_text(settings.replace('short_clips = "skip"\n', ""))
        outcome = bench.compress(*given, "--resume", "--short-clips", "join")
        outcome.refused("settings differ", ": speech.short_clips", "got join")
        done = bench.compress(*given, "--resume").succeeded()
        said = " ".join((done.out + done.err).split())
        assert "6 clips" in said
        assert "4 skipped" in said

    @pytest.mark.parametrize("width", [32, 64])
    def test_other_teacher_of_the_same_name(self, width, bench, interrupted, tmp_path) -> None:
        """Whether or not its weights would fit."""
        from l0prune_speech.encoder.modules import build_encoder
        from safetensors.torch import save_file

        with l0prune_file(bench.teacher) as file:
            metadata = file.metadata()
        small = {**json.loads(metadata["config"]), "encoder_ff_interm_features": width}
        kept = bench.teacher.read_bytes()
        # The first teacher's weights come from seed 0.
        torch.manual_seed(1)
        try:
            weights = {name: tensor.contiguous() for name, tensor in build_encoder(small).state_dict().items()}
            save_file(weights, bench.teacher, metadata={**metadata, "config": json.dumps(small)})
            outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        finally:
            bench.teacher.write_bytes(kept)
        outcome.refused("teacher or data differ from those the run began with", str(interrupted))

    def test_other_clips_below_the_same_folder(self, bench, interrupted, tmp_path) -> None:
        moved = next(path for path in sorted(bench.clips.rglob("*")) if path.is_file())
        elsewhere = tmp_path / moved.name
        moved.rename(elsewhere)
        try:
            outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        finally:
            elsewhere.rename(moved)
        outcome.refused("teacher or data differ from those the run began with", str(interrupted))

    @pytest.mark.parametrize("damage", ["empty", "short", "noise", "flipped"])
    def test_damaged_checkpoint(self, damage, bench, interrupted, tmp_path) -> None:
        """The one before is taken, with a word; where all are damaged, that is the error."""
        before, newest = sorted((interrupted / "checkpoints").iterdir())
        data = newest.read_bytes()
        if damage == "empty":
            newest.write_bytes(b"")
        elif damage == "short":
            newest.write_bytes(data[: len(data) // 2])
        elif damage == "noise":
            newest.write_bytes(os.urandom(3000))
        else:
            newest.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
        kept = before.read_bytes()
        before.write_bytes(b"")
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        outcome.refused("damaged checkpoint", str(newest))
        before.write_bytes(kept)
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml").succeeded()
        word, *_ = outcome.out.splitlines()
        assert word.startswith(f"damaged checkpoint: {newest} (got ")
        assert word.endswith("): going on from the one before")

    @pytest.mark.parametrize("content", [3, {"version": -1}])
    def test_checkpoint_of_another_version(self, content, bench, interrupted, tmp_path) -> None:
        newest = sorted((interrupted / "checkpoints").iterdir())[-1]
        torch.save(content, newest)
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        outcome.refused("checkpoint of another version", str(newest))

    @pytest.mark.parametrize("how", ["pickle", "torch"])
    def test_checkpoint_that_would_run_code(self, how, bench, interrupted, tmp_path) -> None:
        marker = tmp_path / "it ran"
        newest = sorted((interrupted / "checkpoints").iterdir())[-1]
        if how == "pickle":
            newest.write_bytes(pickle.dumps(Trap(marker)))
        else:
            torch.save({"version": 2, "trap": Trap(marker)}, newest)
        trap = newest.read_bytes()
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        assert f"damaged checkpoint: {newest} (got " in outcome.succeeded().out
        assert not marker.exists()
        torch.load(io.BytesIO(trap), weights_only=False) if how == "torch" else pickle.loads(trap)
        assert marker.exists()  # The trap itself works.

    def test_damaged_settings(self, bench, interrupted, tmp_path) -> None:
        (interrupted / "config.toml").write_text("seed = ")
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        outcome.refused("not a TOML file", "config.toml")


def l0prune_file(path: Path):
    from safetensors import safe_open

    return safe_open(path, "pt")
