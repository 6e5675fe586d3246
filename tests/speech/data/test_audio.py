"""Finding and decoding clips, against tones of known frequency and length."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from l0prune_speech.data.audio import SAMPLE_RATE, Clip, ClipSet, Skipped, find_clips, read
from torchaudio.functional import resample

from l0prune.errors import DataError

TONE_HZ, SECONDS = 440.0, 2.5
RATES = (8_000, 22_050, 44_100, 48_000)
LOSSLESS = ("wav", "flac")
LAYOUTS = [(suffix, channels) for suffix in ("wav", "flac", "ogg") for channels in (1, 2, 6)] + [("mp3", 1), ("mp3", 2)]


def write(
    path: Path, *, rate: int = SAMPLE_RATE, seconds: float = SECONDS, channels: int = 1, noise: float = 0.0
) -> Path:
    """A tone of 440 Hz; its channels differ and their mean has amplitude 0.4; noise makes its places unlike."""
    times = np.arange(round(seconds * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * TONE_HZ * times)
    tone = tone + noise * np.random.default_rng(0).standard_normal(len(times))
    # The sixth channel of six is the bass channel, from which Vorbis takes everything as high as the tone.
    scales = {1: [1.0], 2: [0.5, 1.5], 6: [0.6, 0.9, 1.2, 1.5, 1.8, 0.0]}[channels]
    kind = {".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS")}.get(path.suffix, (None, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate, channels, format=kind[0], subtype=kind[1]) as file:
        for second in np.array_split(tone[:, None] * np.array(scales), max(1, round(seconds))):
            file.write(second)
    return path


def clip_at(path: Path) -> Clip:
    (clip,) = find_clips([path], min_seconds=0.0).clips
    return clip


def tone(samples: int) -> torch.Tensor:
    return 0.4 * torch.sin(2 * math.pi * TONE_HZ / SAMPLE_RATE * torch.arange(samples, dtype=torch.float64)).float()


class TestRead:
    @pytest.mark.parametrize("rate", RATES)
    @pytest.mark.parametrize(("suffix", "channels"), LAYOUTS)
    def test_a_tone_keeps_its_length_frequency_and_level(
        self, tmp_path: Path, suffix: str, channels: int, rate: int
    ) -> None:
        clip = clip_at(write(tmp_path / f"tone.{suffix}", rate=rate, channels=channels))
        waveform = read(clip)
        assert waveform.dtype == torch.float32
        assert waveform.shape == (clip.samples,) == (round(SECONDS * SAMPLE_RATE),)
        assert clip.duration_seconds == SECONDS
        spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs()
        assert spectrum.argmax().item() * SAMPLE_RATE / len(waveform) == pytest.approx(TONE_HZ, abs=0.5)
        inner = slice(1_000, -1_000)
        assert waveform[inner].square().mean().sqrt().item() == pytest.approx(0.4 / math.sqrt(2), rel=0.05)
        if suffix in LOSSLESS:
            torch.testing.assert_close(waveform[inner], tone(len(waveform))[inner], atol=2e-3, rtol=0)

    def test_opus_reads_at_its_own_rate(self, tmp_path: Path) -> None:
        waveform = read(clip_at(write(tmp_path / "tone.opus", rate=48_000)))
        assert len(waveform) == round(SECONDS * SAMPLE_RATE)

    @pytest.mark.parametrize("rate", [SAMPLE_RATE, 11_025, *RATES])
    def test_a_whole_read_is_torchaudio_on_the_mean_of_the_channels(self, tmp_path: Path, rate: int) -> None:
        path = write(tmp_path / "a.wav", rate=rate, channels=2, noise=0.05)
        frames, _ = soundfile.read(path, dtype="float32")
        expected = resample(torch.from_numpy(frames.mean(axis=1)), rate, SAMPLE_RATE)
        torch.testing.assert_close(read(clip_at(path)), expected, atol=1e-6, rtol=0)

    # 22.05 kHz mp3 starts wrongly right after a seek, and Vorbis does near its end; 13 s is past the decoder's lead.
    @pytest.mark.parametrize(
        ("suffix", "rate"),
        [(suffix, rate) for suffix in ("wav", "flac", "ogg", "mp3") for rate in (SAMPLE_RATE, *RATES)]
        + [("opus", SAMPLE_RATE), ("opus", 48_000)],
    )
    def test_a_part_equals_the_slice_of_the_whole(self, tmp_path: Path, suffix: str, rate: int) -> None:
        clip = clip_at(write(tmp_path / f"a.{suffix}", rate=rate, seconds=13.37, noise=0.1))
        whole = read(clip)
        for start in (0, 1, 4_321, 100_003, 190_001, clip.samples - 9_000, clip.samples - 50):
            part = read(clip, start_seconds=start / SAMPLE_RATE, duration_seconds=0.2)
            torch.testing.assert_close(part, whole[start : start + 3_200], atol=2e-5, rtol=0)

    def test_only_the_part_asked_for_is_decoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clip = clip_at(write(tmp_path / "a.flac", rate=44_100, seconds=8))
        decoded, plain_read = [], soundfile.SoundFile.read

        def counting_read(file: soundfile.SoundFile, frames: int = -1, **options: Any) -> np.ndarray:
            result = plain_read(file, frames, **options)
            decoded.append(len(result))
            return result

        monkeypatch.setattr(soundfile.SoundFile, "read", counting_read)
        read(clip, start_seconds=5.0, duration_seconds=0.5)
        assert sum(decoded) == pytest.approx(0.5 * 44_100, abs=2_000)

    def test_a_format_that_cannot_seek_is_read_through(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clip = clip_at(write(tmp_path / "a.wav", noise=0.1))
        part = read(clip, start_seconds=1.0)
        monkeypatch.setattr(soundfile.SoundFile, "seekable", lambda file: False)
        monkeypatch.setattr(soundfile.SoundFile, "seek", lambda *_: pytest.fail("seeked"))
        torch.testing.assert_close(read(clip, start_seconds=1.0), part, atol=0, rtol=0)

    def test_beyond_the_end_is_left_out(self, tmp_path: Path) -> None:
        clip = clip_at(write(tmp_path / "a.wav", rate=8_000))
        assert len(read(clip, start_seconds=2.0, duration_seconds=9.0)) == SAMPLE_RATE // 2
        assert len(read(clip, start_seconds=99.0)) == len(read(clip, duration_seconds=0.0)) == 0

    @pytest.mark.parametrize("suffix", ["flac", "mp3"])
    def test_a_file_cut_after_its_header_is_named(self, tmp_path: Path, suffix: str) -> None:
        path = write(tmp_path / f"cut.{suffix}", noise=0.1)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        clip = clip_at(path)
        with pytest.raises(DataError, match=r"clip (cannot be decoded|ends early): .*cut\."):
            read(clip)

    def test_a_file_gone_since_it_was_found_is_named(self, tmp_path: Path) -> None:
        clip = clip_at(write(tmp_path / "gone.wav"))
        clip.path.unlink()
        with pytest.raises(DataError, match=r"gone\.wav"):
            read(clip)

    def test_values_that_are_not_finite_are_refused(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "nan.wav", np.full(SAMPLE_RATE, np.nan), SAMPLE_RATE, subtype="FLOAT")
        with pytest.raises(DataError, match=r"not finite: .*nan\.wav"):
            read(clip_at(tmp_path / "nan.wav"))


class TestFindClips:
    def names(self, found: ClipSet, root: Path) -> list[str]:
        return [clip.path.relative_to(root).as_posix() for clip in found.clips]

    def test_a_folder_is_searched_in_sorted_order_whatever_the_case_of_the_suffix(self, tmp_path: Path) -> None:
        for name in ("19/198/b.flac", "19/198/a.wav", "103/1240/c.WAV", "d.ogg"):
            write(tmp_path / name)
        (tmp_path / "19/198/19-198.trans.txt").write_text("words")
        found = find_clips([tmp_path], min_seconds=1.0)
        assert self.names(found, tmp_path) == ["103/1240/c.WAV", "19/198/a.wav", "19/198/b.flac", "d.ogg"]
        assert found.seconds == pytest.approx(4 * SECONDS)
        assert found.describe() == "4 clips, 0.2 minutes"

    def test_paths_keep_their_order_and_a_file_counts_once(self, tmp_path: Path) -> None:
        first, second = write(tmp_path / "z.wav"), write(tmp_path / "a.wav")
        (tmp_path / "link.wav").symlink_to(second)
        assert self.names(find_clips([first, tmp_path, second], min_seconds=1.0), tmp_path) == ["z.wav", "a.wav"]

    def test_a_clip_of_just_the_shortest_length_is_kept(self, tmp_path: Path) -> None:
        write(tmp_path / "a.wav", seconds=2.0)
        assert len(find_clips([tmp_path], min_seconds=2.0).clips) == 1

    def test_bad_files_are_skipped_with_the_reason(self, tmp_path: Path) -> None:
        write(tmp_path / "good.wav")
        write(tmp_path / "no_frames.wav", seconds=0.0)
        write(tmp_path / "short.ogg", seconds=1.2)
        write(tmp_path / "odd_rate.wav", rate=16_001)
        (tmp_path / "empty.flac").touch()
        for suffix in ("wav", "flac", "ogg", "mp3", "opus"):
            (tmp_path / f"junk.{suffix}").write_bytes(np.random.default_rng(0).bytes(3_000))
        found = find_clips([tmp_path], min_seconds=2.0)
        reasons = {file.path.name: file.reason for file in found.skipped}
        assert self.names(found, tmp_path) == ["good.wav"]
        assert reasons == {
            "no_frames.wav": "zero length",
            "short.ogg": "shorter than 2.0 s",
            "odd_rate.wav": "cannot be resampled from 16001 Hz",
            "empty.flac": "zero length",
        } | {f"junk.{suffix}": "not readable as audio" for suffix in ("wav", "flac", "ogg", "mp3", "opus")}
        assert found.describe().startswith(
            "1 clip, 0.0 minutes; 9 skipped, 90% OF ALL FILES (5 not readable as audio, 2 zero length, "
        )
        assert " and 4 more" in found.describe()

    def test_sound_of_other_formats_and_dangling_links_are_counted_and_named(self, tmp_path: Path) -> None:
        write(tmp_path / "a.wav")
        for name in ("b.m4a", "c.AIFF", "notes.txt"):
            (tmp_path / name).write_bytes(b"something")
        (tmp_path / "d.wav").symlink_to(tmp_path / "gone.wav")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        (tmp_path / "more").symlink_to(tmp_path.parent, target_is_directory=True)
        found = find_clips([tmp_path], min_seconds=0.0)
        assert [clip.path.name for clip in found.clips] == ["a.wav"]
        assert {file.path.name: file.reason for file in found.skipped} == {
            "b.m4a": ".m4a is not read",
            "c.AIFF": ".aiff is not read",
            "d.wav": "dangling link",
            "loop": "dangling link",
            "more": "link to a folder, which is not followed",
        }

    def test_a_folder_of_other_formats_says_what_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "b.m4a").write_bytes(b"something")
        with pytest.raises(DataError, match=r"no usable clips: .*1 file: 1 \.m4a is not read.*ends in \.wav, \.flac"):
            find_clips([tmp_path], min_seconds=0.0)

    def test_many_short_clips_are_said_loudly_with_the_setting_that_skips_them(self, tmp_path: Path) -> None:
        for number in range(4):
            write(tmp_path / f"{number}.wav", seconds=2.5 if number == 0 else 1.0)
        described = find_clips([tmp_path], min_seconds=2.0).describe()
        assert described.startswith("1 clip, 0.0 minutes; 3 skipped, 75% OF ALL FILES: 1.wav (shorter than 2.0 s), ")
        assert described.endswith("; a lower --min-seconds (speech.min_seconds) takes shorter ones")

    def test_few_skipped_files_are_all_named(self) -> None:
        skipped = Skipped(path=Path("x/a.wav"), reason="zero length"), Skipped(path=Path("b.ogg"), reason="missing")
        clips = tuple(Clip(path=Path(str(n)), sample_rate=8_000, frames=80_000) for n in range(12))
        described = ClipSet(clips=clips, skipped=skipped).describe()
        assert described == "12 clips, 2.0 minutes; 2 skipped: a.wav (zero length), b.ogg (missing)"

    def test_clips_that_are_all_too_short_say_how_long_the_longest_is(self, tmp_path: Path) -> None:
        write(tmp_path / "a.wav", seconds=1.2)
        write(tmp_path / "b.wav", seconds=0.5)
        (tmp_path / "c.wav").touch()
        expected = r"3 files: 2 shorter than 2\.0 s, 1 zero length.*longest is 1\.2 s: lower --min-seconds"
        with pytest.raises(DataError, match=expected):
            find_clips([tmp_path], min_seconds=2)

    def test_unreadable_files_alone_are_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp3").write_bytes(b"not audio")
        with pytest.raises(DataError, match=r"no usable clips: .*a\.mp3 \(got 1 file: 1 not readable as audio"):
            find_clips([tmp_path / "a.mp3"], min_seconds=1.0)

    def test_no_paths_at_all(self) -> None:
        with pytest.raises(DataError, match="no usable clips"):
            find_clips([], min_seconds=1.0)

    def test_a_path_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no such file or folder: .*nowhere"):
            find_clips([tmp_path / "nowhere"], min_seconds=1.0)

    def test_a_folder_without_audio_names_the_suffixes(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(DataError, match=r"no audio in this folder.*\.wav, \.flac, \.ogg, \.mp3, \.opus"):
            find_clips([tmp_path], min_seconds=1.0)

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(DataError, match=r"not an audio file.*got \.txt"):
            find_clips([tmp_path / "notes.txt"], min_seconds=1.0)


class TestManifest:
    def manifest(self, folder: Path, text: str) -> Path:
        (folder / "train.tsv").write_text(text, encoding="utf-8", newline="")
        return folder / "train.tsv"

    @pytest.mark.parametrize("relative", [True, False])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_entries_keep_their_order_and_take_their_length_from_the_header(
        self, tmp_path: Path, relative: bool, newline: str
    ) -> None:
        write(tmp_path / "root/b.wav", rate=8_000)
        write(tmp_path / "root/sub/ä a.flac", rate=44_100)
        root = "root" if relative else tmp_path / "root"
        lines = [str(root), "sub/ä a.flac\t99", "b.wav\t40000", "lost.wav\t40000", "", ""]
        found = find_clips([self.manifest(tmp_path, newline.join(lines))], min_seconds=1.0)
        assert [clip.path.name for clip in found.clips] == ["ä a.flac", "b.wav"]
        assert [clip.sample_rate for clip in found.clips] == [44_100, 8_000]
        assert {clip.duration_seconds for clip in found.clips} == {SECONDS}
        assert [(file.path.name, file.reason) for file in found.skipped] == [("lost.wav", "missing")]

    def test_a_manifest_and_its_folder_give_each_file_once(self, tmp_path: Path) -> None:
        write(tmp_path / "a.wav")
        manifest = self.manifest(tmp_path, ".\na.wav\t1\na.wav\t1\n")
        assert len(find_clips([manifest, tmp_path], min_seconds=1.0).clips) == 1

    @pytest.mark.parametrize("line", ["a.wav 40000", "a.wav\t", "\t40000", "a.wav\tlong", "a.wav\t1\t2", "a.wav\t-1"])
    def test_a_malformed_line_is_named_by_its_number(self, tmp_path: Path, line: str) -> None:
        write(tmp_path / "a.wav")
        with pytest.raises(DataError, match=r"malformed manifest line: .*train\.tsv:3 .*relative_path<TAB>num_samples"):
            find_clips([self.manifest(tmp_path, f".\na.wav\t1\n{line}\n")], min_seconds=1.0)

    @pytest.mark.parametrize("text", ["", "\na.wav\t1\n", "nowhere\na.wav\t1\n"])
    def test_the_root_folder_must_exist(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(DataError, match=r"manifest names no root folder: .*train\.tsv:1"):
            find_clips([self.manifest(tmp_path, text)], min_seconds=1.0)

    def test_a_manifest_must_be_text(self, tmp_path: Path) -> None:
        (tmp_path / "train.tsv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(DataError, match=r"manifest cannot be read: .*train\.tsv"):
            find_clips([tmp_path / "train.tsv"], min_seconds=1.0)

    def test_a_manifest_whose_entries_are_all_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="1 file: 1 missing"):
            find_clips([self.manifest(tmp_path, ".\na.wav\t1\n")], min_seconds=1.0)
