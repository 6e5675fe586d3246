"""What a frozen encoder knows: small heads trained on its hidden states, after SUPERB (arXiv 2105.01051)."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.probes.catalogue import HEAD_TASKS, TASKS
    from l0prune_speech.probes.evaluating import evaluate_models
    from l0prune_speech.probes.own_heads import evaluate_heads, task_for

    __all__ = [
        "HEAD_TASKS",
        "TASKS",
        "evaluate_heads",
        "evaluate_models",
        "task_for",
    ]

_HOMES = {
    "catalogue": ("HEAD_TASKS", "TASKS"),
    "evaluating": ("evaluate_models",),
    "own_heads": ("evaluate_heads", "task_for"),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
