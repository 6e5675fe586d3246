"""Sound within shards and manifests is what the same files give by themselves."""

import gzip
import io
import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from l0prune_speech.data import AudioBatches, Clip, ClipSet, clips_digest, find_clips, read

from l0prune.errors import DataError

KINDS = ("wav", "flac", "ogg", "mp3")


def written(path: Path, *, seconds: float = 1.5, rate: int = 22_050, channels: int = 1, seed: int = 0) -> Path:
    noise = 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, rate)
    return path


def sharded(shard: Path, files: list[Path], more: dict[str, bytes] | None = None, mode: Any = "w") -> Path:
    with tarfile.open(shard, mode) as archive:
        for file in files:
            archive.add(file, file.name)
        for name, content in (more or {}).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return shard


def found(*paths: Path, min_seconds: float = 0.1) -> ClipSet:
    return find_clips(list(paths), min_seconds=min_seconds)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [written(tmp_path / "files" / f"{kind}.{kind}", seed=n) for n, kind in enumerate(KINDS)]


def same(first: Clip, second: Clip) -> bool:
    part = {"start_seconds": 0.5, "duration_seconds": 0.25}
    return torch.equal(read(first), read(second)) and torch.equal(read(first, **part), read(second, **part))


def test_a_shard_gives_what_its_files_give(files: list[Path], tmp_path: Path) -> None:
    shard = sharded(tmp_path / "000.tar", files, {"wav.txt": b"said", "notes": b"none"})
    inside, alone = found(shard), found(*files)
    assert [clip.name for clip in inside.clips] == [file.name for file in files]
    assert all(same(a, b) for a, b in zip(inside.clips, alone.clips, strict=True))
    assert clips_digest(inside.clips) == clips_digest(alone.clips)
    assert found(shard.parent / "000.tar", shard).clips == inside.clips
    folder = tmp_path / "shards"
    folder.mkdir()
    shard.rename(folder / "000.tar")
    assert [clip.name for clip in found(folder).clips] == [file.name for file in files]


@pytest.mark.parametrize("damage", ["cut in a member", "cut in a header", "a header overwritten", "no tar"])
def test_a_damaged_shard_is_skipped_and_counted(damage: str, files: list[Path], tmp_path: Path) -> None:
    good = sharded(tmp_path / "000.tar", files)
    bad = sharded(tmp_path / "001.tar", files)
    content = bytearray(bad.read_bytes())
    with tarfile.open(bad) as archive:
        second = archive.getmembers()[1]
    if damage == "cut in a member":
        del content[second.offset_data + 100 :]
    elif damage == "cut in a header":
        del content[second.offset + 100 :]
    elif damage == "a header overwritten":
        content[second.offset : second.offset + 512] = b"x" * 512
    else:
        content[:] = b"no tar at all" * 100
    bad.write_bytes(content)
    both = found(good, bad)
    assert len(both.clips) == len(files)
    assert "1 skipped" in both.describe()
    assert "001.tar (damaged shard)" in both.describe()


def test_what_is_no_sound_in_a_shard_is_said(tmp_path: Path) -> None:
    shard = sharded(tmp_path / "0.tar", [written(tmp_path / "a.wav")], {"b.wav": b"no sound", "c.flac": b""})
    assert {file.name: file.reason for file in found(shard).skipped}.keys() == {"b.wav", "c.flac"}
    short = found(sharded(tmp_path / "1.tar", [written(tmp_path / "s.wav", seconds=0.2)]), shard, min_seconds=1.0)
    assert "s.wav (shorter than 1.0 s)" in short.describe()
    with pytest.raises(DataError, match="unpack it"):
        found(sharded(tmp_path / "0.tar.gz", [tmp_path / "a.wav"], mode="w:gz"))
    with pytest.raises(DataError, match="no usable clips"):
        found(sharded(tmp_path / "2.tar", [], {"a.txt": b"said"}))


def test_batches_of_shards_are_those_of_files_at_any_position(files: list[Path], tmp_path: Path) -> None:
    shard = sharded(tmp_path / "000.tar", files)
    streams = [
        AudioBatches(clips=found(*paths).clips, batch_seconds=3.0, max_seconds=1.0, seed=3, workers=0)
        for paths in (files, [shard])
    ]
    for position in (0, 3):
        first, second = (list(itertools.islice(stream(position), 4)) for stream in streams)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    shares = [list(itertools.islice(streams[1].share(rank=r, world_size=2, split=1)(0), 2)) for r in (0, 1)]
    whole = list(itertools.islice(streams[1](0), 4))
    assert all(torch.equal(a, b) for a, b in zip(whole, itertools.chain(*zip(*shares, strict=True)), strict=True))


def recording(path: str, *, rate: int = 22_050, channels: int = 1) -> dict[str, Any]:
    sources = [{"type": "file", "channels": [*range(channels)], "source": path}]
    return {"id": path, "sources": sources, "sampling_rate": rate, "num_samples": 1, "duration": 1.0}


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_cuts_are_parts_of_their_recordings(ending: str, tmp_path: Path) -> None:
    written(tmp_path / "one.wav", rate=16_000, seed=1)
    written(tmp_path / "two.flac", rate=16_000, channels=2, seed=2)
    rows = [
        {"id": "a", "start": 0.5, "duration": 0.75, "channel": 0, "recording": recording("one.wav"), "type": "MonoCut"},
        {"id": "b", "start": 0.0, "duration": 9.0, "channel": 1, "recording": recording("two.flac", channels=2)},
        {"id": "c", "type": "MixedCut", "tracks": []},
        {"id": "d", "start": 2.0, "duration": 1.0, "recording": recording("one.wav")},
        {"id": "e", "start": 0.0, "duration": 1.0, "recording": {**recording("x"), "sources": [{"type": "url"}]}},
    ]
    manifest = tmp_path / f"cuts.{ending}"
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    manifest.write_bytes(gzip.compress(lines.encode()) if ending.endswith("gz") else lines.encode())
    clips = found(manifest)
    a, b = clips.clips
    one, two = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in ("one.wav", "two.flac"))
    assert np.array_equal(read(a).numpy(), one[8_000:20_000])
    assert np.array_equal(read(a, start_seconds=0.25, duration_seconds=0.5).numpy(), one[12_000:20_000])
    assert np.array_equal(read(b).numpy(), two[:, 1])
    assert [file.reason for file in clips.skipped] == [
        "a MixedCut without one recording is not read",
        "zero length",
        "its source (url) is not read",
    ]
    (tmp_path / "recordings.jsonl").write_text(json.dumps(recording("one.wav")) + "\n\n")
    (whole,) = found(tmp_path / "recordings.jsonl").clips
    assert np.array_equal(read(whole).numpy(), one)


@pytest.mark.parametrize("line", ["no json", "[]", "{}", '{"id": "a", "recording": {"sources": [3]}}', "[" * 500])
def test_a_malformed_manifest_names_the_line(line: str, tmp_path: Path) -> None:
    written(tmp_path / "one.wav")
    path = tmp_path / "cuts.jsonl"
    path.write_text(f"{json.dumps(recording('one.wav'))}\n{line}\n")
    with pytest.raises(DataError, match=rf"malformed manifest: {path}:2"):
        found(path)
    (tmp_path / "cuts.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="manifest cannot be read"):
        found(tmp_path / "cuts.jsonl.gz")
