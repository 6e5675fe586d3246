"""Sets with a manifest: what they serve, and what is refused."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from l0prune_speech.data.audio import read
from l0prune_speech.probes.checks import check_classes, check_overlap
from l0prune_speech.probes.corpora.find import open_sets
from l0prune_speech.probes.labelled import LabelledSet

from l0prune import DataError, L0PruneError

Clips = list[dict[str, Any]]
Changed = Callable[..., Path]


def test_tasks_get_their_splits(labelled_sound: Path) -> None:
    sets = open_sets([str(labelled_sound)])
    assert set(sets) == {"keyword", "speaker", "phone", "verification"}
    rows = json.loads((labelled_sound / "manifest.json").read_text())["clips"]
    known, other = {"s0", "s1", "s2", "s3"}, {"s4", "s5"}
    speakers = {(labelled_sound / row["file"], ""): row["speaker"] for row in rows}

    def who(examples) -> set[str]:
        return {speakers[example.segment.clip.path, ""] for example in examples}

    for task, test in {"keyword": other, "speaker": known, "phone": other, "verification": other}.items():
        assert who(sets[task].train) == known
        assert who(sets[task].test) == test
        check_overlap(sets[task])
    assert {example.label for example in sets["keyword"].test} == {"ab", "cd", "ef", "da"}
    assert all(len(example.label) == 8 for example in sets["phone"].test)


def test_the_order_of_the_manifest_says_nothing(labelled_sound: Path, changed_set: Changed) -> None:
    def places(sets: dict[str, LabelledSet]) -> dict[str, list[Any]]:
        return {
            task: [(example.segment.clip.path.name, example.label) for example in (*found.train, *found.test)]
            for task, found in sets.items()
        }

    assert places(open_sets([str(changed_set(lambda clips: clips.reverse()))])) == places(
        open_sets([str(labelled_sound)])
    )


def test_clips_can_be_parts_of_files(changed_set: Changed) -> None:
    def cut(clips: Clips) -> None:
        clips[0] |= {"start_seconds": 0.25, "duration_seconds": 0.5}

    found = open_sets([str(changed_set(cut))])
    (part,) = (
        example.segment
        for split in ("train", "test")
        for example in getattr(found["speaker"], split)
        if example.segment.clip.path.name == "000.wav"
    )
    assert part.read().equal(read(part.clip)[4000:12000])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda clips: clips[3].update(file="003.flac"), "labels without audio: .*003.flac"),
        (lambda clips: clips.pop(), "audio without labels: .*215.wav"),
        (lambda clips: clips[0].pop("phonemes"), "malformed manifest: .*clip 0.*phonemes"),
        (lambda clips: clips[0].update(split="dev"), "malformed manifest: .*dev.*train, seen, unseen"),
        (lambda clips: clips[0].update(start_seconds="soon"), "malformed manifest: .*seconds"),
        (lambda clips: clips[0].update(start_seconds=10**400), "malformed manifest: .*seconds"),
        (lambda clips: clips[0].update(keyword=["ab"]), "malformed manifest: .*clip 0.*keyword = .*expected text"),
        (lambda clips: clips[0].update(keyword=""), "malformed manifest: .*clip 0.*keyword = .*expected text"),
        (lambda clips: clips[0].update(speaker={"name": "s0"}), "malformed manifest: .*clip 0.*speaker = "),
        (lambda clips: clips.append(clips[0]), "clip is listed twice: .*000.wav@0"),
        (lambda clips: clips[0].update(duration_seconds=3.0), "labels do not match the audio.*3 s.*0.8 s"),
        (lambda clips: clips[1].update(speaker="s5"), "train and test overlap: speaker.*s5"),
        (lambda clips: clips[0].update(speaker="s9"), "speaker is tested but never trained on: .*s9"),
        (lambda clips: clips.clear(), "manifest lists no clips"),
    ],
)
def test_labels_that_do_not_match_are_refused(changed_set: Changed, change, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_sets([str(changed_set(change))])


def test_why_a_file_cannot_be_heard_is_told(changed_set: Changed) -> None:
    folder = changed_set()
    (folder / "000.wav").unlink()
    (folder / "000.wav").write_bytes(b"RIFF of nothing")
    with pytest.raises(
        DataError, match=r"labels without audio: .*clip 0 .got 000.wav, \w.*; replace it, or leave it out"
    ):
        open_sets([str(folder)])


@pytest.mark.parametrize(
    ("text", "words"),
    [("[", "manifest cannot be read"), ("[]", "not a manifest.*list"), ('{"format": "other"}', "got other")],
)
def test_other_manifests_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=words):
        open_sets([str(tmp_path)])


def test_folders_of_no_known_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(L0PruneError, match=r"not a labelled set.*LibriSpeech"):
        open_sets([str(tmp_path)])
    for name in ("nothing", "n" * 300):
        with pytest.raises(L0PruneError, match="no such folder"):
            open_sets([str(tmp_path / name)])


def test_sets_that_overlap_are_refused(changed_set: Changed) -> None:
    def twice(clips: Clips) -> None:
        first = next(clip for clip in clips if clip["split"] == "train" and "keyword" in clip)
        clips.append(first | {"split": "unseen", "speaker": "s9"})

    def halves(clips: Clips) -> None:
        first = next(clip for clip in clips if clip["split"] == "train" and "keyword" in clip)
        clips.append(first | {"split": "unseen", "speaker": "s9", "start_seconds": 0.1})
        first["duration_seconds"] = 0.15

    for change in (twice, halves):
        folder = changed_set(change)
        with pytest.raises(DataError, match=r"train and test overlap: .*trained on in"):
            check_overlap(open_sets([str(folder)])["keyword"])
        shutil.rmtree(folder)

    def beside(clips: Clips) -> None:
        halves(clips)
        clips[-1]["start_seconds"] = 0.15

    check_overlap(open_sets([str(changed_set(beside))])["keyword"])


def test_copies_of_a_clip_are_an_overlap(changed_set: Changed) -> None:
    folder = changed_set()
    rows = json.loads((folder / "manifest.json").read_text())["clips"]
    train = next(row["file"] for row in rows if row["split"] == "train" and "keyword" in row)
    test = next(row["file"] for row in rows if row["split"] == "unseen" and "keyword" in row)
    (folder / test).unlink()
    shutil.copy(folder / train, folder / test)
    with pytest.raises(DataError, match=f"train and test overlap: .*{test}.*a copy of .*{train}"):
        check_overlap(open_sets([str(folder)])["keyword"])


def test_classes_that_cannot_be_learnt_are_refused(changed_set: Changed) -> None:
    def once(clips: Clips) -> None:
        clips[next(n for n, clip in enumerate(clips) if clip.get("keyword"))]["keyword"] = "rare"

    folder = changed_set(once)
    with pytest.raises(DataError, match=r"class with a single example: .*rare .expected 2 or more"):
        check_classes(open_sets([str(folder)])["keyword"], unseen=False)
    shutil.rmtree(folder)

    def never(clips: Clips) -> None:
        clips[-1]["keyword"] = "never"

    folder = changed_set(never)
    with pytest.raises(DataError, match=r"class is tested but never trained on: .*never"):
        check_classes(open_sets([str(folder)])["keyword"], unseen=False)
    shutil.rmtree(folder)

    def alike(clips: Clips) -> None:
        for clip in clips:
            if "keyword" in clip:
                clip["keyword"] = "ab"

    with pytest.raises(DataError, match=r"a single class to train on: .*ab"):
        check_classes(open_sets([str(changed_set(alike))])["keyword"], unseen=False)


def test_the_embedded_set_is_small_and_what_it_should_be() -> None:
    folder = Path(str(files("l0prune_speech") / "assets" / "labelled"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5 * 2**20
    content = json.loads((folder / "manifest.json").read_text())
    texts = {
        split: {clip["text"] for clip in content["clips"] if clip["split"] == split and "keyword" not in clip}
        for split in ("train", "seen", "unseen")
    }
    assert texts["train"].isdisjoint(texts["seen"] | texts["unseen"])
    assert texts["seen"].isdisjoint(texts["unseen"])
    sets = open_sets([])
    assert set(sets) == {"keyword", "speaker", "phone", "verification"}
    for task, found in sets.items():
        check_overlap(found)
        check_classes(found, unseen=task == "verification") if task != "phone" else None
    phones = {split: {p for e in getattr(sets["phone"], split) for p in e.label} for split in ("train", "test")}
    assert phones["test"] <= phones["train"]
