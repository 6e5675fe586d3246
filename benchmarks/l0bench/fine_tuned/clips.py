"""Lists of labelled clips, made of the prompts in five languages: transcripts, speakers, and who speaks when."""

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from l0bench.real_material.speech import LANGUAGES, SAMPLE_RATE, Prompt, prompts
from l0bench.recognition.compressed import clips as transcribed
from l0prune import assembled

TASKS: Mapping[str, str] = {"ctc": "asr characters", "speaker": "x-vector", "frames": "frames"}
"""What networks are fine-tuned for, and the score that counts."""
_TESTED = 40
"""Clips of a language that are held out."""
_SHORTEST, _LONGEST = 1.0, 6.0
_PAUSES = (0.1, 0.6)
_AT_ONCE = 3
"""Clips of one window of `frames`, of different speakers."""


def lists(task: str, material: Path) -> dict[str, Path]:
    """Lists of training and test clips, written at first use.

    Args:
        task: One of `TASKS`.
        material: The folder that keeps what was brought.
    """
    if task == "ctc":
        return transcribed(material)
    folder = material / f"clips-{task}"
    if not folder.exists():
        parts = _split({language: prompts(language, material) for language in LANGUAGES})
        with assembled(folder) as made:
            made.mkdir()
            for name, clips in parts.items():
                _write(made, name, task, clips if task == "speaker" else _conversations(clips, name))
    return {name: folder / f"{name}.tsv" for name in ("train", "test")}


def _split(found: Mapping[str, Sequence[Prompt]]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Speakers, one a language, and samples; always the same clips are held out."""
    parts: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    for speaker, clips in found.items():
        usable = [clip for clip in clips if _SHORTEST <= clip.seconds <= _LONGEST]
        for place, number in enumerate(np.random.default_rng(0).permutation(len(usable)).tolist()):
            parts["test" if place < _TESTED else "train"].append((speaker, usable[number].samples))
    return parts


def _conversations(clips: Sequence[tuple[str, np.ndarray]], name: str) -> list[tuple[str, np.ndarray]]:
    """Clips of different speakers after each other; labels are `name:seconds ...`."""
    generator = np.random.default_rng(1 if name == "train" else 2)
    waiting = {speaker: [samples for other, samples in clips if other == speaker] for speaker in LANGUAGES}
    windows = []
    while sum(bool(left) for left in waiting.values()) >= _AT_ONCE:
        # Those with most clips left first, so that none stays over.
        order = sorted(waiting, key=lambda speaker: (-len(waiting[speaker]), generator.random()))[:_AT_ONCE]
        sounds, spans = [], []
        for place in generator.permutation(_AT_ONCE).tolist():
            speaker = order[place]
            samples, pause = waiting[speaker].pop(), int(generator.uniform(*_PAUSES) * SAMPLE_RATE)
            noise = generator.standard_normal(pause) * 3
            sounds += [noise.astype(np.int16), samples]
            spans += [f"pause:{pause / SAMPLE_RATE:.3f}", f"{speaker}:{len(samples) / SAMPLE_RATE:.3f}"]
        windows.append((" ".join(spans), np.concatenate(sounds)))
    return windows


def _write(folder: Path, name: str, task: str, clips: Sequence[tuple[str, np.ndarray]]) -> None:
    (folder / name).mkdir()
    lines = ["path\tspeaker" if task == "speaker" else "path\tlabel"]
    for number, (label, samples) in enumerate(clips):
        path = f"{name}/{number:04d}.wav"
        with wave.open(str(folder / path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(samples.tobytes())
        lines.append(f"{path}\t{label}")
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
