"""Runs in Weights & Biases."""

from typing import Any

from l0prune.adapters.tracking import ProjectObserver


class WandbObserver(ProjectObserver):
    """Tells Weights & Biases of a run: `l0prune.compress(..., observer=WandbObserver("my-project"))`.

    Args:
        project: The project's name.
        beside: Watches the run, too.
        settings: Further arguments of `wandb.init`.
    """

    library = "wandb"

    def module(self) -> Any:
        """The library."""
        import wandb  # pyright: ignore[reportMissingImports]

        return wandb
