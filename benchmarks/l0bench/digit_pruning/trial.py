"""What one run is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IDENTITY = ("network", "label", "size", "steps", "rate", "seed", "trial")
TRIAL_SEEDS = (100, 101, 102)
"""Of runs that choose a learning rate; no result has it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run."""

    network: str
    method: str
    label: str
    """The method's name in tables: another one for other settings."""
    size: int
    """Per cent of the parameters to remove."""
    steps: int
    """Of the optimizer, in all, after the dense training."""
    rate: float
    seed: int
    trial: bool = False
    """Whether it chooses a learning rate: scored on the validation images alone."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the method."""
