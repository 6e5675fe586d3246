"""Synthetic speakers, and what they say, by espeak-ng."""

import io
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
import torchaudio

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
