"""Make the embedded speech, or the larger corpus the embedded teacher is pre-trained on, with espeak-ng.

    python benchmarks/teacher/make_speech.py clips  --out plugins/speech/l0prune_speech/assets/speech
    python benchmarks/teacher/make_speech.py corpus --out /tmp/l0prune-corpus

Every clip is one sentence of `sentences.py` by one voice: a language accent, a variant, a pitch and a speed. A
`manifest.json` beside the clips records text and voice. Needs Debian's `espeak-ng`.
"""

import argparse
import io
import json
import random
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from sentences import sentence

SAMPLE_RATE = 16_000
ACCENTS = ["en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbcwmd", "en-gb-x-gbclan", "en-us-nyc"]
# Whispered, robotic and test variants are left out: they are effects, not speakers.
VARIANTS = """Adam Alex Alicia Andrea Andy Annie Antonio Auntie Belinda Benjamin Boris Caleb David Denis Diogo Ed Edward
Gene Gustave Henrique Hugo Iven Jacky John Lee Linda Marcelo Marco Mario Max Michael Michel Miguel Mike Nguyen Pablo
Paul Pedro Quincy RicishayMax Rob Robert Steph Storm Zac anika f1 f2 f3 f4 f5 grandma grandpa m1 m2 m3 m4 m5 m6 m7 m8
sandro shelby travis victor norbert""".split()


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One synthetic speaker."""

    accent: str
    variant: str
    pitch: int
    """espeak-ng pitch, 0 to 99."""
    words_per_minute: int


def make_voices(count: int, rng: random.Random, accents: Sequence[str] = ACCENTS) -> list[Voice]:
    """`count` voices, every variant used before one is used again."""
    variants: list[str] = []
    while len(variants) < count:
        variants += rng.sample(VARIANTS, len(VARIANTS))
    return [
        Voice(accent=rng.choice(accents), variant=v, pitch=rng.randint(20, 80), words_per_minute=rng.randint(125, 210))
        for v in variants[:count]
    ]


def speak(text: str, voice: Voice) -> np.ndarray:
    """Speak `text`: float32 samples at 16 kHz."""
    command = ["espeak-ng", "-v", f"{voice.accent}+{voice.variant}", "-p", str(voice.pitch)]
    command += ["-s", str(voice.words_per_minute), "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    return torchaudio.functional.resample(torch.from_numpy(samples), rate, SAMPLE_RATE).numpy()


def synthesise(text: str, voice: Voice, seed: int) -> np.ndarray:
    """Speak `text`: float32 samples at 16 kHz, peak 0.2 to 0.9, over a faint noise floor 35 to 55 dB down."""
    waveform = speak(text, voice)
    generator = np.random.default_rng(seed)
    rms = float(np.sqrt(np.mean(waveform**2)) + 1e-9)
    waveform = waveform + generator.standard_normal(len(waveform)) * rms * 10 ** (-generator.uniform(35, 55) / 20)
    return (waveform / np.abs(waveform).max() * generator.uniform(0.2, 0.9)).astype(np.float32)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["clips", "corpus"])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # The embedded clips are other sentences by other voices than the teacher's corpus (another seed).
    seed, voices, minutes, suffix = {"clips": (7, 32, 8.0, ".ogg"), "corpus": (1, 160, 150.0, ".flac")}[arguments.what]
    rng = random.Random(seed)
    speakers = make_voices(voices, rng)
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = ((index, sentence(rng), speakers[index % voices]) for index in range(10**6))
    manifest, seconds = [], 0.0
    with ThreadPoolExecutor(2) as pool:
        while seconds < minutes * 60:
            batch = [next(jobs) for _ in range(64 if arguments.what == "corpus" else 8)]
            waves = pool.map(lambda job: synthesise(job[1], job[2], seed * 10**6 + job[0]), batch)
            for (index, text, voice), samples in zip(batch, waves, strict=True):
                if len(samples) < 2 * SAMPLE_RATE:
                    continue
                name = f"{index:05d}{suffix}"
                soundfile.write(arguments.out / name, samples, SAMPLE_RATE)
                seconds += len(samples) / SAMPLE_RATE
                duration = round(len(samples) / SAMPLE_RATE, 3)
                manifest.append({"file": name, "duration_seconds": duration, "text": text, "voice": asdict(voice)})
    (arguments.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"{len(manifest)} clips, {seconds / 60:.1f} minutes, {voices} voices in {arguments.out}")


if __name__ == "__main__":
    main()
