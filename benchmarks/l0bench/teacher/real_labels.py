"""Labelled clips of real speech for probes: characters, languages and digits of the prompts in five languages.

Each language has one speaker, so telling languages apart is telling these five speakers apart too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from l0bench.real_material.speech import Prompt
from l0bench.recognition.prompt_sets import split
from l0bench.teacher.channels import recorded

SNR_DB = (10.0, 30.0)
TRAINED, TESTED = 120, 40
"""Clips of each language."""
_SHORTEST, _LONGEST = 0.8, 4.0
_COPIES = 4
"""Of each digit, every one through a channel of its own."""
_LETTERS = re.compile("[a-z']")
_NUMBER = re.compile(r"digits__(h-)?(\d+)$")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A clip, what it is, and on which side of the split."""

    name: str
    samples: np.ndarray
    """(S,) float32, peak 0.5."""
    label: str
    split: str
    """`train` or `test`."""


def characters(english: Sequence[Prompt]) -> list[Labelled]:
    """Characters divided by spaces, `|` between words; no transcript is on both sides."""
    sets = split(english)
    found = []
    for side, clips in (("train", sets.train), ("test", (*sets.validation, *sets.test))):
        for clip in clips:
            marks = [mark if mark != " " else "|" for mark in clip.text.lower()]
            label = " ".join(mark for mark in marks if mark == "|" or _LETTERS.match(mark))
            samples = (clip.samples / 32768).astype(np.float32)
            if len(samples) > _SHORTEST * 16_000 and label:
                found.append(Labelled(name=clip.name, samples=samples, label=label, split=side))
    return found


def languages(found: Mapping[str, Sequence[Prompt]]) -> list[Labelled]:
    """Which language, from 0.8 to 4 seconds through a channel of their own; no prompt is on both sides."""
    clips = []
    for language, prompts in found.items():
        usable = [prompt for prompt in prompts if _SHORTEST <= prompt.seconds <= _LONGEST]
        for place, i in enumerate(np.random.default_rng(0).permutation(len(usable))[: TESTED + TRAINED].tolist()):
            side = "test" if place < TESTED else "train"
            clips.append(_through_channel(f"{language}-{usable[i].name}", usable[i], language, side, 0))
    return clips


def digits(found: Mapping[str, Sequence[Prompt]]) -> list[Labelled]:
    """Which of nine digits, in five languages.

    Tested are the digits themselves ("six"); trained on are the other numbers that are named after one ("sixteen",
    "sixty", "six hundred", "sixth"). So the recording and the word that are tested were never heard.
    """
    clips = []
    for language, prompts in found.items():
        for prompt in prompts:
            match = _NUMBER.search(prompt.name)
            if match is None:
                continue
            number, ordinal = int(match[2]), bool(match[1])
            digit = named_after(number)
            if digit is None:
                continue
            side = "test" if number < 10 and not ordinal else "train"
            for copy in range(_COPIES):
                name = f"{language}-{prompt.name}-{copy}"
                clips.append(_through_channel(name, prompt, str(digit), side, copy))
    return clips


def named_after(number: int) -> int | None:
    """The one digit that a number's word is made of: 6 of 6, 16, 60 and 600; None where there are two, or none."""
    if number in (0, 10):
        return None
    if number < 20:
        return number % 10
    rest = [figure for figure in str(number) if figure != "0"]
    return int(rest[0]) if len(rest) == 1 else None


def _through_channel(name: str, prompt: Prompt, label: str, side: str, copy: int) -> Labelled:
    generator = np.random.default_rng([copy, *name.encode()])
    samples = recorded(prompt.samples / 32768, generator, snr_db=SNR_DB)
    return Labelled(name=name, samples=samples, label=label, split=side)
