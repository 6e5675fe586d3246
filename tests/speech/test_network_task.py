"""A run of a network with its head, put together: what is trained, what is heard, what is held out."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from l0prune_speech.data import Piece, PieceBatches
from tiny_networks import save_network

import l0prune
from l0prune import ConfigError, Task
from l0prune.support import build


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small Whisper, and a list of twelve clips of 0.6 to 1.15 seconds."""
    folder = tmp_path_factory.mktemp("material")
    noise = np.random.default_rng(0)
    rows = ["path\ttext"]
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", 0.1 * noise.standard_normal(9_600 + 800 * number), 16_000)
        rows.append(f"{number}.wav\t{' '.join(noise.choice(list('abcdef'), size=3))}")
    (folder / "list.tsv").write_text("\n".join(rows) + "\n")
    return save_network("whisper", folder / "teacher"), folder / "list.tsv"


@pytest.fixture
def prepare(material: tuple[Path, Path]) -> Any:
    def make(**options: Any) -> Task:
        teacher, data = material
        speech = {"teacher": str(teacher), "data": [str(data)], "evaluation_seconds": 2.0, "workers": 0, **options}
        plugin = l0prune.get_plugin("speech")
        run = l0prune.resolve(plugin, {"device": "cpu", "speech": speech}, recipe="whisper")
        return plugin.prepare(build(plugin.options, run.options), run)

    return make


def trained(task: Task) -> set[str]:
    """Modules of the student with a weight that is trained, by the first three parts of their names."""
    weights = task.objective.student.named_parameters()
    return {".".join(name.split(".")[:3]) for name, weight in weights if weight.requires_grad}


def test_tokens_and_frozen_modules_stay_as_they_are(prepare: Any) -> None:
    task = prepare()
    assert {"model.decoder.layers", "model.encoder.layers"} <= trained(task)
    assert "model.decoder.embed_tokens" not in trained(task)
    batch = next(iter(task.batches(0)))
    task.objective(batch).total.backward()
    table = task.objective.student.get_input_embeddings().weight
    assert table.grad is None
    assert task.objective.student.proj_out.weight is table
    assert "model.decoder.embed_tokens" in trained(prepare(train_tokens=True))
    alone = prepare(frozen=["model.decoder"])
    assert all(name.startswith("model.encoder.") for name in trained(alone))
    with pytest.raises(ConfigError, match=r"no such module to freeze: speech.frozen: decoder .*below model, proj_out"):
        prepare(frozen=["decoder"])
    with pytest.raises(ConfigError, match="nothing to train"):
        prepare(frozen=["model", "proj_out"])


def test_clips_are_joined_in_rounds_apart_from_those_held_out(prepare: Any) -> None:
    task = prepare(join_rounds=3, window_seconds=4)
    batches = task.batches
    assert isinstance(batches, PieceBatches)
    heard = Counter(part.clip.path.name for window in batches.pieces for part in window.parts)
    assert set(heard.values()) == {3}
    assert 0 < len(heard) < 12
    assert all(window.answer is not None and window.seconds <= 4 for window in batches.pieces)

    def neighbours(windows: list[Piece]) -> set[str]:
        return {window.name for window in windows}

    assert len(neighbours(list(batches.pieces))) > len(
        neighbours(list(prepare(window_seconds=4, join_rounds=1).batches.pieces))
    )
    # What is held out is what no window of training holds, each clip once.
    whole = prepare(join_clips=False, window_seconds=4)
    single = {part.clip.path.name for window in whole.batches.pieces for part in window.parts}
    assert single == set(heard)
    assert sum(batch.size for batch in whole.evaluation) == 12 - len(heard)
    seconds = sum(batch.seconds for batch in task.evaluation)
    assert seconds >= sum(batch.seconds for batch in whole.evaluation)


def test_without_logits_to_match_the_teachers_decoder_is_silent(prepare: Any) -> None:
    for weights, calls in (({}, 0), ({"logit_weight": 1.0}, 1)):
        task = prepare(**weights)
        teacher: Any = task.objective.teacher.model
        spoken: list[int] = []
        teacher.model.decoder.register_forward_hook(lambda *given, spoken=spoken: spoken.append(1))
        batch = next(iter(task.batches(0)))
        losses = task.objective(batch)
        assert len(spoken) == calls
        # The second time nothing of the teacher runs.
        with torch.no_grad():
            again = task.objective(batch)
        assert len(spoken) == calls
        torch.testing.assert_close(again.total, losses.total.detach())


def test_long_clips_are_left_out_or_split_and_strange_characters_are_named(prepare: Any, tmp_path: Path) -> None:
    rows = ["path\ttext"]
    for number, seconds in enumerate((1, 1, 9, 1)):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(16_000 * seconds), 16_000)
        rows.append(f"{number}.wav\ta ? b")
    (tmp_path / "list.tsv").write_text("\n".join(rows) + "\n")
    # With their transcripts they cannot be cut.
    facts = prepare(data=[str(tmp_path / "list.tsv")], join_clips=False).facts
    assert "1 longer than 4 s left out: 2.wav first" in facts["data"]
    assert facts["teacher"].endswith("left out of transcripts, 3 characters outside the vocabulary: '?' (3)")
    (tmp_path / "list.tsv").unlink()
    task = prepare(data=[str(tmp_path)], join_clips=False, task_weight=0.0)
    assert "1 longer than 4 s split" in task.facts["data"]
    assert isinstance(task.batches, PieceBatches)
    pieces = task.batches.pieces
    heard = sum(piece.seconds for piece in pieces) + sum(batch.seconds for batch in task.evaluation)
    # All twelve seconds, no more than four at once.
    assert heard == pytest.approx(12, abs=1)
    assert max(piece.seconds for piece in pieces) <= 4
