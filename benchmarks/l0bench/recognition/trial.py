"""What one run is: a method at a size, for a number of steps, by an objective, at a rate, from a seed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

IDENTITY = ("label", "size", "steps", "objective", "rate", "seed", "precision", "trial", "max_norm")
TRIAL_SEED = 100
"""Of runs that choose a learning rate; no result has it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run."""

    method: str
    label: str
    """The method's name in tables: another one for other settings."""
    size: int
    """Per cent of the encoder's parameters to remove."""
    steps: int
    """Of the optimizer, in all."""
    objective: str
    rate: float
    """Peak learning rate of the weights."""
    seed: int
    precision: str = "float32"
    max_norm: float | None = None
    """The weights' gradients are scaled down to this norm in every step; None leaves them."""
    trial: bool = False
    """Whether it chooses a learning rate: scored on the validation prompts alone."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the method."""

    def row(self) -> dict[str, Any]:
        """As a row of results begins."""
        return asdict(self)
