"""`l0prune compress` of networks with heads: checkpoints, labels and clips that do not fit, each refused in a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_networks import save_network

Write = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a network once for all tests."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = save_network(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Path]:
    """Writes a list of three clips of a second and their labels."""

    def write(column: str, *labels: str) -> Path:
        for number in range(3):
            samples = 0.1 * np.random.default_rng(number).standard_normal(16_000)
            soundfile.write(tmp_path / f"{number}.wav", samples, 16_000)
        rows = [f"path\t{column}", *(f"{number}.wav\t{label}" for number, label in enumerate(labels))]
        (tmp_path / "list.tsv").write_text("\n".join(rows) + "\n")
        return tmp_path / "list.tsv"

    return write


@pytest.fixture
def compress(l0prune_call: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def run(teacher: Path, data: Path, *more: object) -> Any:
        out = tmp_path / "run"
        done = l0prune_call(
            *("compress", "--plugin", "speech", "--teacher", teacher, "--data", data, "--min-seconds", "0.3"),
            *("--device", "cpu", "--out", out, *more),
        )
        assert not out.exists()
        return done

    return run


def changed(teacher: Path, folder: Path, file: str, change: dict[str, Any]) -> Path:
    """A copy of a checkpoint with other settings in one of its files."""
    folder.mkdir()
    for path in teacher.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    stated = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(stated | change))
    return folder


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", {"model_type": "bert"}, ("unknown family", "got bert", "whisper", "register_family adds one")),
        ("config.json", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, ("a decoder without",)),
        ("preprocessor_config.json", {"sampling_rate": 8000}, ("another sample rate", "got 8000 Hz")),
        ("vocab.json", {"Z": 20}, ("the vocabulary does not fit the head", "got 21 tokens", "at most 12")),
    ],
)
def test_a_checkpoint_that_cannot_be_used(
    compress: Any, teachers: Any, listed: Any, tmp_path: Path, file: str, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    teacher = changed(teachers("wav2vec2"), tmp_path / "changed", file, change)
    compress(teacher, listed("text", "ab", "ba", "cab")).refused(*words)


@pytest.mark.parametrize(
    ("name", "column", "label", "words"),
    [
        ("classes", "label", "cat", ("the head has no such class: 1.wav", "got 'cat'", "LABEL_0")),
        ("x-vector", "speaker", "cat", ("the head has no such class: 1.wav", "got 'cat'", "LABEL_0")),
        ("frames", "label", "LABEL_1", ("malformed labels of frames: 1.wav", "name:seconds")),
        ("wav2vec2", "text", "123", ("nothing of the transcript is in the vocabulary: 1.wav", "got '123'")),
        ("wav2vec2", "label", "ab", ("the list has no labels for the task", "a column text")),
        ("wav2vec2", "text", "", ("audio without a label", "list.tsv:3 (got 1.wav)")),
    ],
)
def test_labels_that_do_not_fit(
    compress: Any, teachers: Any, listed: Any, name: str, column: str, label: str, words: tuple[str, ...]
) -> None:
    other = {"text": "ab", "label": "LABEL_0:1.0" if name == "frames" else "LABEL_0", "speaker": "LABEL_0"}[column]
    compress(teachers(name), listed(column, other, label, other)).refused(*words)


def test_a_transcript_without_audio_and_audio_without_a_transcript(
    compress: Any, teachers: Any, listed: Any, tmp_path: Path
) -> None:
    data = listed("text", "ab", "ba", "cab")
    (tmp_path / "1.wav").unlink()
    compress(teachers("wav2vec2"), data).refused("label without audio", "list.tsv:3 (got 1.wav)")
    chapter = tmp_path / "tree/19/198"
    chapter.mkdir(parents=True)
    for number in range(2):
        soundfile.write(chapter / f"19-198-000{number}.flac", np.zeros(16_000), 16_000)
    (chapter / "19-198.trans.txt").write_text("19-198-0000 AB\n")
    compress(teachers("wav2vec2"), tmp_path / "tree").refused("audio without a transcript", "19-198-0001 first")


def test_clips_that_no_window_holds(compress: Any, teachers: Any, listed: Any) -> None:
    data = listed("text", "a b", "b a", "c a b")
    compress(teachers("whisper"), data, "--window-seconds", "9").refused(
        "no such window", "got 9", "expected at most 4"
    )
    compress(teachers("wav2vec2"), data, "--max-seconds", "0.5").refused("every clip is too long", "expected 0.5")
