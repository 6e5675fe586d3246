"""What a frozen encoder knows: small heads trained on its hidden states, after SUPERB (arXiv 2105.01051)."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.probes.catalogue import TASKS
    from l0prune_speech.probes.evaluating import evaluate_models

    __all__ = [
        "TASKS",
        "evaluate_models",
    ]

_HOMES = {
    "catalogue": ("TASKS",),
    "evaluating": ("evaluate_models",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
