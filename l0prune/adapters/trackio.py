"""Runs in trackio."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l0prune.adapters.tracking import Flat, TrackingObserver
from l0prune.workflows import Observer


class TrackioObserver(TrackingObserver):
    """Tells trackio of a run: `l0prune.compress(..., observer=TrackioObserver("my-project"))`.

    Args:
        project: The project's name.
        beside: Watches the run, too.
        settings: Further arguments of `trackio.init`.
    """

    library = "trackio"

    def __init__(self, project: str, *, beside: Observer | None = None, **settings: Any) -> None:
        super().__init__(beside=beside)
        self._project, self._settings, self._run = project, settings, None

    def open(self, settings: Flat, folder: Path) -> None:
        """Begin a run, named as its folder."""
        import trackio  # pyright: ignore[reportMissingImports]

        given = {"name": folder.name, **self._settings}
        # A type checker may take this file for the library.
        library: Any = trackio
        self._run = library.init(project=self._project, config=dict(settings), **given)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A point on each curve."""
        assert self._run is not None
        self._run.log(dict(values), step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        """The last points, and the end of the run."""
        assert self._run is not None
        self._run.log({f"report/{name}": value for name, value in summary.items()})
        self._run.finish()
