"""One run: a fine-tuned network at a share of its size, by one of several losses, and its score in its own metric."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import l0prune
from l0bench.compress_rows import measured
from l0bench.fine_tuned.clips import TASKS, lists
from l0bench.fine_tuned.networks import network
from l0prune import EvaluationSettings, Observer

IDENTITY = ("task", "method", "size", "steps", "seed")
METHODS: Mapping[str, Mapping[str, float]] = {
    "task loss": {"layer_weight": 1.0, "task_weight": 0.5},
    "logits": {"layer_weight": 1.0, "task_weight": 0.0, "logit_weight": 1.0},
    "distillation": {"layer_weight": 1.0, "task_weight": 0.0},
}
"""Beside the last layer: half of the task's own loss; the teacher's logits, without labels; nothing."""


@dataclass(frozen=True, kw_only=True)
class Wished:
    """One run."""

    task: str
    method: str
    """One of `METHODS`, or "dense"."""
    size: int
    """Per cent of the network's parameters to remove, the head's counted."""
    steps: int
    """Of both stages."""
    seed: int

    def row(self) -> dict[str, Any]:
        """As a row of results begins."""
        return asdict(self)


def run(wished: Wished, material: Path) -> dict[str, Any]:
    """Compress and score.

    Returns:
        The fields of the wish and its figures; `failed` in their place where an error of the library's ended it.
    """
    teacher, found = network(wished.task, material), lists(wished.task, material)
    dense = wished.method == "dense"
    return measured(
        wished,
        lambda: _scored(str(teacher), wished.task, found["test"]) if dense else _compressed(wished, teacher, found),
    )


def _compressed(wished: Wished, teacher: Path, found: Mapping[str, Path]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "target_sparsity": wished.size / 100,
        "metric": "params",
        "seed": wished.seed,
        "device": "cpu",
        "steps": wished.steps,
        "speech": {
            "teacher": str(teacher),
            "task": wished.task,
            "data": [str(found["train"])],
            "batch_seconds": 10.0,
            "evaluation_seconds": 30.0,
            "workers": 0,
            "join_clips": wished.task == "ctc",
            **METHODS[wished.method],
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        report = l0prune.compress("speech", recipe="whisper", settings=settings, out=out, observer=Observer())
        facts = {
            "sparsity": report.sparsity,
            "loss_after_cut": report.distill_loss_after_removal,
            "loss_final": report.distill_loss_final,
        }
        return facts | _scored(str(out), wished.task, found["test"])


def _scored(model: str, task: str, test: Path) -> dict[str, Any]:
    """As `l0prune evaluate` scores it."""
    wanted = TASKS[task]
    asked = EvaluationSettings(tasks=(wanted.split()[0],), data=(str(test),), max_minutes=60, against=model)
    found = l0prune.evaluate([model], plugin="speech", settings=asked, note=lambda text: None)
    score = next(score for score in found.scores if score.task == wanted)
    interval = score.facts.get("interval")
    return {
        "parameters": found.models[model]["parameters"],
        "error": score.values[0],
        "interval": None if interval is None else list(interval),
    }
