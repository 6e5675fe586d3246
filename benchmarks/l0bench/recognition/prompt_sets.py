"""Which prompts are heard in training and which are held out, and how short clips become windows of ten seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l0bench.real_material.speech import SAMPLE_RATE, Prompt
from l0bench.recognition.scoring import spoken, words

SECONDS = 10
TESTED, VALIDATED = 120, 40
_SPLIT_SEED = 23
_GAP_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class Window:
    """At most ten seconds of sound and what is said in them."""

    name: str
    samples: np.ndarray
    """(S,) int16 at 16 kHz."""
    text: str


@dataclass(frozen=True, kw_only=True)
class PromptSets:
    """No transcript is in two of them."""

    test: tuple[Window, ...]
    """What results are of."""
    validation: tuple[Window, ...]
    """What learning rates are chosen on."""
    train: tuple[Window, ...]
    """All else: single clips, from one word on."""


def split(prompts: Sequence[Prompt]) -> PromptSets:
    """Hold prompts of 4 to 25 words out, at random but always the same ones.

    Args:
        prompts: Those longer than a window or without a transcript are left out.
    """
    clips = [
        Window(name=prompt.name, samples=prompt.samples, text=spoken(prompt.transcript))
        for prompt in prompts
        if words(spoken(prompt.transcript)) and prompt.seconds <= SECONDS
    ]
    first_of = {}
    for clip in clips:
        first_of.setdefault(tuple(words(clip.text)), clip)
    suitable = [clip for said, clip in first_of.items() if 4 <= len(said) <= 25]
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(suitable))
    held_out = [suitable[i] for i in order[: TESTED + VALIDATED]]
    taken = {tuple(words(clip.text)) for clip in held_out}
    return PromptSets(
        test=tuple(held_out[:TESTED]),
        validation=tuple(held_out[TESTED:]),
        train=tuple(clip for clip in clips if tuple(words(clip.text)) not in taken),
    )


def joined(clips: Sequence[Window], count: int, *, seed: int = 0) -> tuple[Window, ...]:
    """Windows of clips one after the other with short gaps, in random order, over and over until there are enough.

    Args:
        clips: None longer than a window.
        count: Number of windows.
        seed: Of the order.
    """
    generator, windows, waiting = np.random.default_rng(seed), [], []
    gap, most = int(_GAP_SECONDS * SAMPLE_RATE), SECONDS * SAMPLE_RATE
    while len(windows) < count:
        for i in generator.permutation(len(clips)):
            length = sum(len(clip.samples) + gap for clip in waiting) + len(clips[i].samples)
            if waiting and length > most:
                windows.append(_join(waiting, gap))
                waiting = []
            waiting.append(clips[i])
    return tuple(windows[:count])


def _join(clips: Sequence[Window], gap: int) -> Window:
    silence = np.zeros(gap, dtype=np.int16)
    parts = [part for clip in clips for part in (clip.samples, silence)][:-1]
    return Window(
        name="+".join(clip.name for clip in clips),
        samples=np.concatenate(parts),
        text=" ".join(clip.text for clip in clips),
    )
