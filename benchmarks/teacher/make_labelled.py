"""Make the embedded labelled speech that `l0prune evaluate` runs on, or a larger set of the same kind, with espeak-ng.

    python benchmarks/teacher/make_labelled.py small --out plugins/speech/l0prune_speech/assets/labelled
    python benchmarks/teacher/make_labelled.py more-tests --seed 26 --out labelled-26
    python benchmarks/teacher/make_labelled.py large --out labelled-large

A speaker is an accent, a variant, a pitch and a pace. Pitch and pace vary from clip to clip, as they do when people
speak, and every clip is played a little faster or slower, over noise, through a channel of its own, a filter of the
spectrum: else the mean spectrum alone would tell the speakers apart. There are three splits: `train`; `seen`, other
sentences of the same speakers; and `unseen`, other sentences of other speakers, or the same keywords by them. No
sentence comes twice. The clips of a speaker and split stand in one file; `manifest.json` says where each begins, what
it says and who says it. Needs Debian's `espeak-ng`.

Accents, pitch, pace, lengths, noise and channels were settled on sets from other seeds, so that the embedded teacher is
ahead of log-mel filterbanks on every task and none is solved. The embedded set was made once, when they were. The
learning rates that probes try, and how the phone probe is trained, were chosen on clips held out of the training clips
of earlier sets and of one of another seed.
"""

import argparse
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from l0bench.teacher.channels import recorded
from l0bench.teacher.sentences import sentence
from l0bench.teacher.voices import SAMPLE_RATE, Voice, make_voices, speak

SEED = 25
KEYWORDS = """bridge castle garden hammer window river shadow kettle orange purple forward backward seven zero stop
follow learn visual marble thunder""".split()
TEXT_LENGTHS = range(30, 61)
"""Characters of a sentence: two to four seconds."""
PITCH, WORDS_PER_MINUTE = 30, 20
"""How far a clip may be from its speaker's."""
SNR_DB, KEYWORD_SNR_DB = (20.0, 40.0), (10.0, 30.0)
"""Of sentences and of keywords, which are easier."""
GAP_SECONDS = 0.05
COMPRESSION = 0.97
"""Of libsndfile's Opus encoder, 0 to 1: 13.5 kbit/s."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to make."""

    known: int
    """Speakers of the splits `train` and `seen`."""
    unseen: int
    """Other speakers."""
    train: int
    """Sentences a speaker in `train`."""
    seen_test: int
    """Sentences a known speaker in `seen`."""
    unseen_test: int
    """Sentences another speaker."""
    keywords: int
    """Keywords a known speaker says in `train`."""
    unseen_keywords: int
    """Keywords another speaker says."""


SIZES = {
    "small": Size(known=40, unseen=32, train=8, seen_test=5, unseen_test=3, keywords=9, unseen_keywords=6),
    # As much to learn from as in "small", and several times as many clips to tell students apart by.
    "more-tests": Size(known=40, unseen=32, train=8, seen_test=25, unseen_test=20, keywords=9, unseen_keywords=20),
    "large": Size(known=96, unseen=40, train=60, seen_test=10, unseen_test=20, keywords=20, unseen_keywords=20),
}


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One synthetic speaker."""

    name: str
    voice: Voice


@dataclass(frozen=True, kw_only=True)
class Job:
    """A clip to make."""

    text: str
    keyword: str | None
    speaker: Speaker
    split: str
    seed: int


def make_speakers(size: Size, rng: random.Random) -> list[Speaker]:
    """The known speakers, then the others."""
    voices = make_voices(size.known + size.unseen, rng)
    return [Speaker(name=f"s{number:03d}", voice=voice) for number, voice in enumerate(voices)]


def make_jobs(size: Size, rng: random.Random) -> Iterator[Job]:
    """Every clip to make, a speaker's after each other."""
    seen: set[str] = set()

    def fresh() -> str:
        while (text := sentence(rng)) in seen or len(text) not in TEXT_LENGTHS or any(map(str.isdigit, text)):
            pass
        seen.add(text)
        return text

    for number, speaker in enumerate(make_speakers(size, rng)):
        known = number < size.known
        splits = {"train": size.train, "seen": size.seen_test} if known else {"unseen": size.unseen_test}
        for split, count in splits.items():
            texts: list[tuple[str, str | None]] = [(fresh(), None) for _ in range(count)]
            if split != "seen":
                words = rng.sample(KEYWORDS, size.keywords if known else size.unseen_keywords)
                texts += [(f"{word.capitalize()}.", word) for word in words]
            for text, keyword in texts:
                yield Job(text=text, keyword=keyword, speaker=speaker, split=split, seed=rng.randrange(2**31))


def phonemes(text: str, accent: str) -> str:
    """What is said in an accent, separated by spaces, without stress."""
    command = ["espeak-ng", "-q", "-v", accent, "--ipa", "--sep=_", text]
    spoken = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return " ".join(part for part in re.split(r"[\s_]+", re.sub("[ˈˌ]", "", spoken)) if part)


def make_clip(job: Job) -> np.ndarray:
    """Samples of a clip: float32 at 16 kHz, peak 0.5."""
    generator = np.random.default_rng(job.seed)
    usual = job.speaker.voice
    pitch = usual.pitch + int(generator.integers(-PITCH, PITCH, endpoint=True))
    pace = usual.words_per_minute + int(generator.integers(-WORDS_PER_MINUTE, WORDS_PER_MINUTE, endpoint=True))
    voice = replace(usual, pitch=min(max(pitch, 0), 99), words_per_minute=pace)
    snr_db = KEYWORD_SNR_DB if job.keyword else SNR_DB
    return recorded(speak(job.text, voice), generator, snr_db=snr_db)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=SEED, help="of all draws; the embedded set's by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = list(make_jobs(SIZES[arguments.size], random.Random(arguments.seed)))
    files: dict[str, list[np.ndarray]] = {}
    entries, gap = [], np.zeros(round(GAP_SECONDS * SAMPLE_RATE), dtype=np.float32)
    with ThreadPoolExecutor(2) as pool:
        for job, samples in zip(jobs, pool.map(make_clip, jobs), strict=True):
            file = f"{job.speaker.name}-{job.split}.opus"
            pieces = files.setdefault(file, [])
            start = sum(map(len, pieces))
            pieces += [samples, gap]
            entry = {"file": file, "start_seconds": start / SAMPLE_RATE, "duration_seconds": len(samples) / SAMPLE_RATE}
            entry |= {"split": job.split, "speaker": job.speaker.name, "text": job.text, "keyword": job.keyword}
            entries.append({key: value for key, value in entry.items() if value is not None})
        accents = [job.speaker.voice.accent for job in jobs]
        for entry, spoken in zip(entries, pool.map(phonemes, [job.text for job in jobs], accents), strict=True):
            entry["phonemes"] = spoken
    for file, pieces in files.items():
        samples = np.concatenate(pieces)
        soundfile.write(
            arguments.out / file, samples, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION
        )
    speakers = {job.speaker.name: asdict(job.speaker) for job in jobs}
    manifest = {"format": "l0prune-labelled-speech", "speakers": speakers, "clips": entries}
    (arguments.out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    minutes = sum(entry["duration_seconds"] for entry in entries) / 60
    print(f"{len(entries)} clips, {minutes:.1f} minutes, {len(speakers)} speakers, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
