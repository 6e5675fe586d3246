"""Real corpora by path: small folders with the layouts of Speech Commands, LibriSpeech and VoxCeleb1."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from l0prune_speech.probes.corpora.find import open_sets
from l0prune_speech.probes.labelled import Example

from l0prune import DataError


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(4000), 16_000)


@pytest.fixture
def speech_commands(tmp_path: Path) -> Path:
    folder = tmp_path / "speech.commands v2"
    for number, word in enumerate(("yes", "no") * 4):
        write(folder / word / f"{number:08x}_nohash_0.wav", number)
    write(folder / "_background_noise_" / "pink.wav", 99)
    (folder / "testing_list.txt").write_text("yes/00000000_nohash_0.wav\nno/00000001_nohash_0.wav\n")
    (folder / "validation_list.txt").write_text("yes/00000002_nohash_0.wav\n")
    return folder


def test_speech_commands(speech_commands: Path) -> None:
    (found,) = open_sets([str(speech_commands)]).values()
    assert [example.label for example in found.train] == ["no", "no", "no", "yes", "yes"]
    assert [example.segment.clip.path.name for example in found.test] == [
        "00000001_nohash_0.wav",
        "00000000_nohash_0.wav",
    ]


def test_speech_commands_with_missing_clips(speech_commands: Path) -> None:
    (speech_commands / "yes" / "00000000_nohash_0.wav").unlink()
    with pytest.raises(DataError, match=r"labels without audio: .*00000000_nohash_0.wav"):
        open_sets([str(speech_commands)])
    (speech_commands / "validation_list.txt").unlink()
    with pytest.raises(DataError, match=r"Speech Commands without its lists.*validation_list.txt"):
        open_sets([str(speech_commands)])


def test_speech_commands_with_clips_that_cannot_be_read(speech_commands: Path) -> None:
    for name in ("00000000", "00000004"):
        file = speech_commands / "yes" / f"{name}_nohash_0.wav"
        whole = file.read_bytes()
        file.write_bytes(b"")
        with pytest.raises(DataError, match=rf"labels without audio: .*yes/{file.name}, zero length") as refusal:
            open_sets([str(speech_commands)])
        assert ("testing_list.txt:1 " in str(refusal.value)) == (name == "00000000")
        file.write_bytes(whole)
    (speech_commands / "yes" / "00000000_nohash_0.wav").unlink()
    with pytest.raises(DataError, match=r"labels without audio: .*testing_list.txt:1 .got yes/.*, missing"):
        open_sets([str(speech_commands)])


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    folder, number = tmp_path / "LibriSpeech", 0
    for subset, speakers in {"train-clean-100": (11, 12), "test-clean": (21, 22)}.items():
        for speaker in speakers:
            lines = []
            for utterance in range(6):
                name = f"{speaker}-7-{utterance:04d}"
                write(folder / subset / str(speaker) / "7" / f"{name}.flac", number)
                lines.append(f"{name} A {'CAT' if utterance % 2 else 'DOG'}")
                number += 1
            (folder / subset / str(speaker) / "7" / f"{speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_librispeech(librispeech: Path) -> None:
    sets = open_sets([str(librispeech)])
    assert set(sets) == {"speaker", "verification"}
    # The fifth utterance of each speaker is held out.
    assert [example.segment.clip.path.stem for example in sets["speaker"].test] == ["11-7-0004", "12-7-0004"]
    assert len(sets["speaker"].train) == 10
    assert {example.label for example in sets["verification"].train} == {"11", "12"}
    assert {example.label for example in sets["verification"].test} == {"21", "22"}


def test_phones_of_librispeech_are_those_of_its_lexicon(librispeech: Path) -> None:
    (librispeech / "librispeech-lexicon.txt").write_text("A  AH0\nA  EY1\nCAT  K AE1 T\n")
    found = open_sets([str(librispeech)])["phone"]
    # Utterances with a word that the lexicon lacks are left out.
    assert len(found.train) == len(found.test) == 6
    assert {example.label for example in (*found.train, *found.test)} == {("AH", "K", "AE", "T")}


def test_librispeech_whose_transcripts_do_not_match(librispeech: Path) -> None:
    chapter = librispeech / "train-clean-100" / "11" / "7"
    transcripts = (chapter / "11-7.trans.txt").read_text()
    (chapter / "11-7.trans.txt").write_text(transcripts + "11-7-0006 A CAT\n")
    with pytest.raises(DataError, match=r"transcript without audio: .*11-7.trans.txt.*11-7-0006"):
        open_sets([str(librispeech)])
    (chapter / "11-7.trans.txt").write_text(transcripts.split("\n", 1)[1])
    with pytest.raises(DataError, match=r"audio without a transcript: .*11-7-0000.flac"):
        open_sets([str(librispeech)])


def test_librispeech_without_a_test_subset(librispeech: Path) -> None:
    (librispeech / "test-clean").rename(librispeech / "somewhere-else")
    with pytest.raises(DataError, match=r"LibriSpeech is incomplete.*no test subset.*test-clean"):
        open_sets([str(librispeech)])


@pytest.fixture
def voxceleb(tmp_path: Path) -> Path:
    folder = tmp_path / "voxceleb1"
    names = [f"id1000{speaker}/video{video}/0000{clip}.wav" for speaker in range(4) for video in "ab" for clip in "12"]
    for number, name in enumerate(names):
        write(folder / "wav" / name, number)
    splits = {name: 3 if "videob/00002" in name else 1 for name in names}
    (folder / "iden_split.txt").write_text("".join(f"{split} {name}\n" for name, split in splits.items()))
    pairs = [
        "1 id10002/videoa/00001.wav id10002/videob/00001.wav",
        "0 id10002/videoa/00001.wav id10003/videob/00001.wav",
    ]
    (folder / "veri_test.txt").write_text("\n".join(pairs) + "\n")
    return folder


def test_voxceleb(voxceleb: Path) -> None:
    sets = open_sets([str(voxceleb)])
    assert {example.label for example in sets["speaker"].test} == {f"id1000{n}" for n in range(4)}
    assert len(sets["speaker"].train) == 12
    found = sets["verification"]
    assert {example.label for example in found.train} == {"id10000", "id10001"}
    assert len(found.test) == 3
    assert found.trials is not None
    assert [(*(Path(name.split("@")[0]).parts[-3] for name in trial[:2]), trial[2]) for trial in found.trials] == [
        ("id10002", "id10002", True),
        ("id10002", "id10003", False),
    ]


def test_voxceleb_with_missing_clips(voxceleb: Path) -> None:
    (voxceleb / "wav" / "id10002" / "videoa" / "00001.wav").unlink()
    with pytest.raises(DataError, match=r"labels without audio: .*iden_split.txt.*id10002/videoa/00001.wav"):
        open_sets([str(voxceleb)])
    (voxceleb / "iden_split.txt").unlink()
    with pytest.raises(DataError, match=r"labels without audio: .*veri_test.txt"):
        open_sets([str(voxceleb)])


def test_blank_lines_in_lists_say_nothing(voxceleb: Path, librispeech: Path, speech_commands: Path) -> None:
    (librispeech / "librispeech-lexicon.txt").write_text("A  AH0\nCAT  K AE1 T\nDOG  D AO1 G\n")
    folders = [str(folder) for folder in (voxceleb, librispeech, speech_commands)]
    before = [open_sets([folder]) for folder in folders]
    lists = [file for folder in folders for file in Path(folder).rglob("*.txt")]
    assert len(lists) == 2 + (4 + 1) + 2
    for file in lists:
        first, rest = file.read_text().split("\n", 1)
        file.write_text(f"\n{first}\n  \n{rest}\n\n")
    assert [open_sets([folder]) for folder in folders] == before


CAT = "id10002/videoa/00001.wav"
MALFORMED = [
    ("speech_commands", "testing_list.txt", "00000000_nohash_0.wav", "testing_list.txt:3 .*00000000_nohash_0.wav"),
    ("speech_commands", "validation_list.txt", "yes no/0.wav", "validation_list.txt:2 .*yes no.*a clip a line"),
    ("voxceleb", "iden_split.txt", CAT, f"iden_split.txt:17 .*{CAT}.*1, 2 or 3"),
    ("voxceleb", "iden_split.txt", f"x {CAT}", "iden_split.txt:17 .got x, expected 1, 2 or 3"),
    ("voxceleb", "veri_test.txt", f"1 {CAT}", f"veri_test.txt:3 .*1 {CAT}.*two clips"),
    ("voxceleb", "veri_test.txt", f"x {CAT} {CAT}", "veri_test.txt:3 .got x, expected 1 .one speaker. or 0"),
    ("voxceleb", "veri_test.txt", f"0 {CAT}\0 {CAT}", "malformed list: .*veri_test.txt:3 "),
    ("voxceleb", "veri_test.txt", f"0 {CAT} caf\xe9", "list cannot be read: .*veri_test.txt:3 .*expected UTF-8 text"),
    ("librispeech", "librispeech-lexicon.txt", "A  AH0\nCAT", "word without phones: .*lexicon.txt:2 .got CAT"),
    ("librispeech", "train-clean-100/11/7/11-7.trans.txt", "11-7 caf\xe9", "list cannot be read: .*11-7.trans.txt:7 "),
]


@pytest.mark.parametrize(("corpus", "file", "line", "words"), MALFORMED)
def test_malformed_lists_are_refused(
    request: pytest.FixtureRequest, corpus: str, file: str, line: str, words: str
) -> None:
    folder = request.getfixturevalue(corpus)
    with (folder / file).open("ab") as end:
        end.write(f"{line}\n".encode("latin-1"))
    with pytest.raises(DataError, match=words) as refusal:
        open_sets([str(folder)])
    assert "\n" not in str(refusal.value)


def test_the_first_folder_that_serves_a_task_does(librispeech: Path, voxceleb: Path, speech_commands: Path) -> None:
    sets = open_sets([str(voxceleb), str(librispeech), str(speech_commands)])
    assert {task: Path(found.name).name for task, found in sets.items()} == {
        "speaker": "voxceleb1",
        "verification": "voxceleb1",
        "keyword": "speech.commands v2",
    }


def test_splits_and_labels_are_those_of_torchaudios_datasets(
    speech_commands: Path, librispeech: Path, voxceleb: Path
) -> None:
    from torchaudio import datasets

    def labels(examples: tuple[Example, ...]) -> list[tuple[str, object]]:
        return sorted((example.segment.clip.path.name, example.label) for example in examples)

    def metadata(corpus: Any) -> list[Any]:
        return [corpus.get_metadata(number) for number in range(len(corpus))]

    (found,) = open_sets([str(speech_commands)]).values()
    for split, subset in ((found.train, "training"), (found.test, "testing")):
        corpus = datasets.SPEECHCOMMANDS(speech_commands, url="", folder_in_archive="", subset=subset)
        assert labels(split) == sorted((Path(path).name, word) for path, _, word, *_ in metadata(corpus))

    found = open_sets([str(librispeech)])["verification"]
    for split, subset in ((found.train, "train-clean-100"), (found.test, "test-clean")):
        corpus = datasets.LIBRISPEECH(librispeech.parent, url=subset, folder_in_archive=librispeech.name)
        assert labels(split) == sorted((Path(path).name, str(speaker)) for path, _, _, speaker, *_ in metadata(corpus))

    sets = open_sets([str(voxceleb)])
    for split, subset in ((sets["speaker"].train, "train"), (sets["speaker"].test, "test")):
        corpus = datasets.VoxCeleb1Identification(voxceleb, subset)
        expected = sorted((Path(path).name, f"id{10000 + speaker}") for path, _, speaker, _ in metadata(corpus))
        assert labels(split) == expected
    pairs = [
        (f"{voxceleb}/wav/{one}", f"{voxceleb}/wav/{other}", bool(same))
        for one, other, _, same, *_ in metadata(datasets.VoxCeleb1Verification(voxceleb))
    ]
    trials = sets["verification"].trials or ()
    assert [(one.partition("@")[0], other.partition("@")[0], same) for one, other, same in trials] == pairs
