"""Clips and their labels, from lists and trees."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from l0prune_speech.data import find_labelled

from l0prune import DataError


@pytest.fixture
def clips(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes clips of a second: clips("a.wav", "b/c.wav")."""

    def make(*names: str) -> list[Path]:
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(16_000), 16_000)
        return paths

    return make


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.tsv", 'path\ttext\na.wav\tSay "yes", now\nb.wav\tno\n'),
        ("list.csv", 'speaker,sentence,file\nx,"Say ""yes"", now",a.wav\ny,no,b.wav\n'),
        ("list.tsv", 'a.wav\tSay "yes", now\n\nb.wav\tno\n'),
    ],
)
def test_a_list_tells_what_is_said(clips: Callable[..., list[Path]], tmp_path: Path, name: str, content: str) -> None:
    first, second = clips("a.wav", "b.wav")
    (tmp_path / name).write_text(content)
    found = find_labelled([tmp_path / name], "text", min_seconds=0.5)
    assert [(one.clip.path, one.label) for one in found.labelled] == [(first, 'Say "yes", now'), (second, "no")]
    assert found.unlabelled == ()
    assert find_labelled([tmp_path / name, second, first], "text", min_seconds=0.5).unlabelled == ()


def test_a_tree_of_transcripts_tells_speakers_too(clips: Callable[..., list[Path]], tmp_path: Path) -> None:
    clips("19/198/19-198-0000.flac", "26/495/26-495-0000.flac")
    for speaker, chapter in (("19", "198"), ("26", "495")):
        file = tmp_path / speaker / chapter / f"{speaker}-{chapter}.trans.txt"
        file.write_text(f"{speaker}-{chapter}-0000 HELLO {speaker}\n")
    said, by = (find_labelled([tmp_path], holds, min_seconds=0) for holds in ("text", "speaker"))
    assert [one.label for one in said.labelled] == ["HELLO 19", "HELLO 26"]
    assert [one.label for one in by.labelled] == ["19", "26"]
    clips("19/198/19-198-0001.flac")
    with pytest.raises(DataError, match=r"audio without a transcript.*got 1 clips, 19-198-0001 first"):
        find_labelled([tmp_path], "text", min_seconds=0)
    (tmp_path / "26/495/26-495-0000.flac").unlink()
    with pytest.raises(DataError, match=r"transcript without audio: .*26-495.trans.txt:1 .*got 26-495-0000"):
        find_labelled([tmp_path], "text", min_seconds=0)


def test_audio_without_labels_is_kept_apart(clips: Callable[..., list[Path]], tmp_path: Path) -> None:
    clips("a.wav", "more/b.wav")
    (tmp_path / "list.tsv").write_text("path\tlabel\na.wav\tyes\n")
    found = find_labelled([tmp_path / "list.tsv", tmp_path / "more"], "label", min_seconds=0)
    assert [one.label for one in found.labelled] == ["yes"]
    assert [clip.path.name for clip in found.unlabelled] == ["b.wav"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("path\ttext\na.wav\tyes\nmissing.wav\tno\n", r"label without audio: .*list.tsv:3 \(got missing.wav\)"),
        ("path\tspeaker\na.wav\tx\n", r"the list has no labels for the task: .*list.tsv:1 .*expected a column text or"),
        ("path\ttext\na.wav\n", r"malformed list: .*list.tsv:2 "),
        ("path\ttext\na.wav\t\n", r"audio without a label: .*list.tsv:2 \(got a.wav\)"),
        (b"path\ttext\na.wav\t\xff\n", r"list cannot be read.*expected UTF-8 text"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_by_its_line(
    clips: Callable[..., list[Path]], tmp_path: Path, content: str | bytes, line: str
) -> None:
    clips("a.wav")
    (tmp_path / "list.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=line):
        find_labelled([tmp_path / "list.tsv"], "text", min_seconds=0)


def test_shards_carry_their_labels(clips: Callable[..., list[Path]], tmp_path: Path) -> None:
    files = clips("a.wav", "b.wav", "c.wav", "d.wav", "e.flac")
    beside = {
        "a.txt": b" HELLO \n",
        "b.json": b'{"Sentence": "THERE", "speaker_id": 26, "label": true}',
        "c.json": b"[1, 2]",
        "c.cls": b"yes",
        "d.txt": b"\xff\xfe",
        "e.json": b"{",
    }
    shard = tmp_path / "000.tar"
    with tarfile.open(shard, "w") as archive:
        for name, content in [*beside.items()][:2]:
            archive.addfile(member(name, content), io.BytesIO(content))
        for file in files:
            archive.add(file, file.name)
        for name, content in [*beside.items()][2:]:
            archive.addfile(member(name, content), io.BytesIO(content))
    found = find_labelled([shard, tmp_path / "a.wav"], "text", min_seconds=0)
    assert [(one.clip.name, one.label) for one in found.labelled] == [("a.wav", "HELLO"), ("b.wav", "THERE")]
    assert found.labelled[0].where == f"{shard}: a.wav"
    assert [clip.name for clip in found.unlabelled] == ["c.wav", "d.wav", "e.flac", "a.wav"]
    for holds, expected in (("speaker", ["26"]), ("label", ["yes"])):
        assert [one.label for one in find_labelled([shard], holds, min_seconds=0).labelled] == expected


def member(name: str, content: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info


def test_cuts_carry_what_is_said_in_the_order_of_time(clips: Callable[..., list[Path]], tmp_path: Path) -> None:
    clips("a.wav")
    recording = {"id": "a", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}]}
    cut = {"start": 0.0, "duration": 0.5, "recording": recording}
    said = [{"start": 0.3, "text": "THERE", "speaker": "x"}, {"start": 0.0, "text": "HELLO", "speaker": "x"}]
    several = [{"start": 0.0, "text": "A", "speaker": "x"}, {"start": 0.1, "text": "B", "speaker": "y"}]
    rows = [{"id": "1", **cut, "supervisions": said}, {"id": "2", **cut, "start": 0.5, "supervisions": several}]
    rows.append({"id": "3", **cut, "start": 0.25, "supervisions": []})
    (tmp_path / "cuts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    text, speaker = (find_labelled([tmp_path / "cuts.jsonl"], holds, min_seconds=0) for holds in ("text", "speaker"))
    assert [(one.clip.name, one.label) for one in text.labelled] == [("1", "HELLO THERE"), ("2", "A B")]
    assert [(one.clip.name, one.label) for one in speaker.labelled] == [("1", "x")]
    assert [clip.name for clip in text.unlabelled] == ["3"]
