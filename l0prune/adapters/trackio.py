"""Runs in trackio."""

from typing import Any

from l0prune.adapters.tracking import ProjectObserver


class TrackioObserver(ProjectObserver):
    """Tells trackio of a run: `l0prune.compress(..., observer=TrackioObserver("my-project"))`.

    Args:
        project: The project's name.
        beside: Watches the run, too.
        settings: Further arguments of `trackio.init`.
    """

    library = "trackio"

    def module(self) -> Any:
        """The library."""
        import trackio  # pyright: ignore[reportMissingImports]

        return trackio
