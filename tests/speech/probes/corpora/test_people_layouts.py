"""Labels as people keep them: tables with a header, a folder a class, manifests with some of the labels."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from l0prune_speech.probes.checks import check_classes, check_overlap
from l0prune_speech.probes.corpora.find import open_sets
from l0prune_speech.probes.labelled import LabelledSet

from l0prune import DataError

SPEAKERS, CLIPS = 6, 5


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Clips of six speakers, each of whom says "ab" and "cd" in turns: audio/s0-0.wav, ..."""
    folder, noise = tmp_path / "set", np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True)
    for speaker in range(SPEAKERS):
        for number in range(CLIPS):
            soundfile.write(folder / "audio" / f"s{speaker}-{number}.wav", noise.standard_normal(1600), 16_000)
    return folder


def rows(*columns: Callable[[int, int], str]) -> list[list[str]]:
    return [[column(s, n) for column in columns] for s in range(SPEAKERS) for n in range(CLIPS)]


def path(s: int, n: int) -> str:
    return f"audio/s{s}-{n}.wav"


def word(s: int, n: int) -> str:
    return ("ab", "cd")[n % 2]


def write(file: Path, header: str, lines: list[list[str]], delimiter: str = ",") -> Path:
    file.write_text("\n".join(delimiter.join(line) for line in [header.split(), *lines]) + "\n", encoding="utf-8")
    return file


def labels(found: LabelledSet, split: str) -> set[Any]:
    return {example.label for example in getattr(found, split)}


def test_speakers_alone(clips: Path) -> None:
    write(clips / "labels.csv", "File Speaker-ID", rows(path, lambda s, n: f"s{s}"))
    for data in (clips, clips / "labels.csv"):
        sets = open_sets([str(data)])
        assert set(sets) == {"speaker", "verification"}
        check_classes(sets["speaker"], unseen=False)
        check_classes(sets["verification"], unseen=True)
        assert labels(sets["speaker"], "test") == labels(sets["speaker"], "train") == {f"s{s}" for s in range(SPEAKERS)}
        assert len(sets["speaker"].test) == SPEAKERS
        assert sets["speaker"].notes == ()
        for found in sets.values():
            check_overlap(found)


def test_keywords_alone_in_tsv_by_name_only(clips: Path) -> None:
    write(clips / "labels.tsv", "audio keyword", rows(lambda s, n: f"s{s}-{n}", word), delimiter="\t")
    sets = open_sets([str(clips)])
    assert set(sets) == {"keyword"}
    assert labels(sets["keyword"], "test") == labels(sets["keyword"], "train") == {"ab", "cd"}


def test_words_are_tested_on_other_speakers(clips: Path) -> None:
    write(clips / "labels.csv", "path label speaker", rows(path, word, lambda s, n: f"s{s}"))
    sets = open_sets([str(clips)])
    assert set(sets) == {"keyword", "speaker", "verification"}
    trained, tested = (
        {example.segment.clip.path.name[:2] for example in getattr(sets["keyword"], split)}
        for split in ("train", "test")
    )
    assert not trained & tested


def test_phonemes_and_transcripts(clips: Path) -> None:
    write(clips / "labels.csv", "path phonemes", rows(path, lambda s, n: "a b" if n % 2 else "c d"))
    assert open_sets([str(clips)])["phone"].train[0].label == ("c", "d")
    write(clips / "labels.csv", "path sentence speaker", rows(path, lambda s, n: "Hello there", lambda s, n: f"s{s}"))
    sets = open_sets([str(clips)])
    assert set(sets) == {"speaker", "verification"}
    assert "30 transcripts serve no phone recognition: no column phonemes" in sets["speaker"].notes[0]
    (clips / "librispeech-lexicon.txt").write_text("HELLO HH AH0 L OW1\nTHERE DH EH1 R\n")
    assert open_sets([str(clips)])["phone"].train[0].label == ("HH", "AH", "L", "OW", "DH", "EH", "R")


def test_audio_without_rows_and_rows_without_audio_are_counted_and_named(clips: Path) -> None:
    lines = rows(path, word)[1:]
    lines[0][0] = "audio/lost.wav"
    write(clips / "labels.csv", "path label", lines)
    (clips / "audio" / "s0-2.wav").write_bytes(b"RIFF of nothing")
    notes = open_sets([str(clips)])["keyword"].notes
    assert any("2 rows without audio left out: audio/lost.wav, audio/s0-2.wav" in note for note in notes)
    assert any("2 clips without a row left out: audio/s0-0.wav, audio/s0-1.wav" in note for note in notes)


def test_rare_classes_are_left_out_and_named(clips: Path) -> None:
    lines = rows(path, word)
    lines[3][1] = "ef"
    write(clips / "labels.csv", "path label", lines)
    found = open_sets([str(clips)])["keyword"]
    assert labels(found, "train") == {"ab", "cd"}
    assert any(note.endswith("left out, 1: ef") for note in found.notes)


def test_splits_of_a_column_and_of_file_names(clips: Path) -> None:
    def split(s: int, n: int) -> str:
        return "test" if s > 3 or n == 4 else "dev" if n == 3 else "train"

    lines = rows(path, lambda s, n: f"s{s}", split)
    write(clips / "labels.csv", "path speaker subset", lines)

    def seen(sets: dict[str, LabelledSet]) -> None:
        assert labels(sets["speaker"], "test") == labels(sets["speaker"], "train") == {"s0", "s1", "s2", "s3"}
        assert labels(sets["verification"], "test") == {"s4", "s5"}
        assert len(sets["speaker"].train) == 4 * 3

    seen(open_sets([str(clips)]))
    (clips / "labels.csv").unlink()
    for name in ("train", "test", "dev"):
        write(clips / f"{name}.tsv", "path speaker", [line[:2] for line in lines if line[2] == name], delimiter="\t")
    seen(open_sets([str(clips)]))


@pytest.mark.parametrize(
    ("header", "lines", "words"),
    [
        ("name label", [["a", "b"]], r"not a table of labels: .*got header name, label, expected a header.*path"),
        ("path file label", [["a", "b", "c"]], "two columns of one kind: .*got path"),
        ("path label", [["", "b"]], "row names no audio: .*labels.csv:2"),
        ("path label", [["lost.wav", "b"]], "labels without audio: .*got lost.wav.; paths begin at"),
        ("path label split", [["audio/s0-0.wav", "b", "half"]], "malformed table: .*csv:2 .got split half"),
        ("path label start_seconds", [["audio/s0-0.wav", "b", "soon"]], "malformed table: .*csv:2.*seconds"),
        ("path label", [["audio/s0-0.wav", "b"]], "the labels serve no task: .*columns label, path"),
    ],
)
def test_tables_that_are_none_are_refused(clips: Path, header: str, lines: list[list[str]], words: str) -> None:
    file = write(clips / "labels.csv", header, lines)
    with pytest.raises(DataError, match=words):
        open_sets([str(file)])


def test_of_several_tables_one_is_to_be_named(clips: Path) -> None:
    for name in ("one", "other"):
        write(clips / f"{name}.csv", "path label", rows(path, word))
    with pytest.raises(DataError, match=r"several tables of labels: .*one\.csv, other\.csv.*--data FILE"):
        open_sets([str(clips)])


def by_class(clips: Path, tmp_path: Path, place: Callable[[int, int], str]) -> Path:
    folder = tmp_path / "classes"
    for s in range(SPEAKERS):
        for n in range(CLIPS):
            file = folder / place(s, n) / f"s{s}-{n}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clips / path(s, n), file)
    return folder


def test_a_folder_a_class(clips: Path, tmp_path: Path) -> None:
    folder = by_class(clips, tmp_path, word)
    shutil.copy(clips / path(0, 0), folder / "loose.wav")
    sets = open_sets([str(folder)])
    assert set(sets) == {"keyword"}
    assert labels(sets["keyword"], "test") == {"ab", "cd"}
    assert any("1 clips in no folder of a class left out: loose.wav" in note for note in sets["keyword"].notes)


def test_a_folder_a_speaker_below_train_and_test(clips: Path, tmp_path: Path) -> None:
    folder = by_class(clips, tmp_path, lambda s, n: f"{'test' if n == 4 else 'train'}/s{s}")
    found = open_sets([str(folder)], ("speaker",))["speaker"]
    assert labels(found, "test") == labels(found, "train") == {f"s{s}" for s in range(SPEAKERS)}
    assert {example.segment.clip.path.name[-5] for example in found.test} == {"4"}


@pytest.mark.parametrize(
    ("label", "tasks"),
    [({"speaker": "s{s}"}, {"speaker"}), ({"keyword": "{word}"}, {"keyword"}), ({"phonemes": "a b"}, {"phone"})],
)
def test_a_manifest_with_one_kind_of_label(clips: Path, label: dict[str, str], tasks: set[str]) -> None:
    entries = [
        {"file": path(s, n), "split": "test" if n == 4 else "train"}
        | {key: text.format(s=s, word=word(s, n)) for key, text in label.items()}
        for s in range(SPEAKERS)
        for n in range(CLIPS)
    ]
    content = {"format": "l0prune-labelled-speech", "clips": entries}
    (clips / "manifest.json").write_text(json.dumps(content))
    assert set(open_sets([str(clips)])) == tasks
    entries[3] = {"file": path(0, 3), "split": "train"}
    (clips / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="clip 3"):
        open_sets([str(clips)])
