"""What reads each kind of file, and whether a checksum says that it is what was written."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from l0prune_speech.data import find_clips, read
from l0prune_speech.formats import load_teacher
from l0prune_speech.probes.corpora import open_sets

import l0prune
from l0bench.fuzzing.samples import SOUNDS
from l0prune.report import run_facts
from l0prune.storage import newest_checkpoint


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A kind of file, and how it is read."""

    file: str
    """Which one is changed, below the folder of samples."""
    read: Callable[[Path], object]
    """Reads it, given that folder; what it returns tells whether it was read as before."""
    form: str = ""
    """How it is written (`changes.FORMS`); empty where only bytes are changed."""
    sealed: bool = False
    """Whether a checksum, in it or beside it, tells that it was changed: then it may not be read as something else."""


def weights(module: torch.nn.Module) -> str:
    """Digest of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _teacher(name: str) -> Callable[[Path], object]:
    return lambda folder: weights(load_teacher(str(folder / name)).encoder)


def _run(folder: Path) -> object:
    return weights(l0prune.load(folder / "run"))


def _verified(folder: Path) -> object:
    """The checks that hold; their first that does not is raised, as the command does."""
    found = l0prune.verify(folder / "whole")
    if found.broken is not None:
        raise l0prune.RunError("does not hold", got=found.broken.said)
    return [check.name for check in found.checks]


def _reported(folder: Path) -> object:
    return run_facts(folder / "reported", "run").to_json()


def _whole_report(folder: Path) -> object:
    return run_facts(folder / "whole", "run").to_json()


def _sound(name: str) -> Callable[[Path], object]:
    def heard(folder: Path) -> object:
        clips = find_clips([folder / name], min_seconds=0.0).clips
        return [hashlib.sha256(read(clip).numpy().tobytes()).hexdigest() for clip in clips]

    return heard


READERS: dict[str, Reader] = {
    "safetensors": Reader(file="teacher.safetensors", read=_teacher("teacher.safetensors"), form="header"),
    "pickle": Reader(file="student.pth", read=_teacher("student.pth"), form="archive", sealed=True),
    "Hugging Face config.json": Reader(file="in-parts/config.json", read=_teacher("in-parts"), form="json"),
    "Hugging Face index": Reader(file="in-parts/model.safetensors.index.json", read=_teacher("in-parts"), form="json"),
    "Hugging Face weights": Reader(
        file="huggingface/model.safetensors", read=_teacher("huggingface"), form="header", sealed=True
    ),
    "model.json": Reader(file="run/model.json", read=_run, form="json", sealed=True),
    "model.json, verified": Reader(file="whole/model.json", read=_verified, form="json"),
    "model.json, reported": Reader(file="whole/model.json", read=_whole_report, form="json"),
    "report.json, verified": Reader(file="whole/report.json", read=_verified, form="json"),
    "weights of a run": Reader(file="run/model.safetensors", read=_run, form="header", sealed=True),
    "probe of a run": Reader(file="whole/probe.safetensors", read=_verified, form="header", sealed=True),
    "report.json": Reader(file="reported/report.json", read=_reported, form="json"),
    "metrics.jsonl": Reader(file="reported/metrics.jsonl", read=_reported, form="lines"),
    "config.toml": Reader(file="reported/config.toml", read=_reported, form="toml"),
    "evaluation.json": Reader(file="reported/evaluation.json", read=_reported, form="json"),
    "bench.json": Reader(file="reported/bench.json", read=_reported, form="json"),
    "checkpoint": Reader(
        file="checkpoints/step-00000003.pt",
        read=lambda folder: newest_checkpoint(folder / "checkpoints"),
        form="checkpoint",
        sealed=True,
    ),
    "manifest.tsv": Reader(
        file="clips.tsv", read=lambda folder: find_clips([folder / "clips.tsv"], min_seconds=0.0), form="tsv"
    ),
    "manifest.json": Reader(
        file="clips/manifest.json", read=lambda folder: open_sets([str(folder / "clips")]), form="json"
    ),
    **{kind: Reader(file=f"sounds/clip.{kind}", read=_sound(f"sounds/clip.{kind}")) for kind in SOUNDS},
}
"""By name."""
