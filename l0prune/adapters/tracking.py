"""Runs told to experiment trackers: what all of them hear, and that no tracker stops a run."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from l0prune.config import RunConfig
from l0prune.errors import ConfigError
from l0prune.gates import GatedModel
from l0prune.plugin import Task
from l0prune.support import one_line
from l0prune.training import Record
from l0prune.workflows import CompressionReport, LoggingObserver, Observer

Flat = Mapping[str, float | int | str | bool]


class TrackingObserver(Observer):
    """Tells a tracker of a run of `compress`; notes go to another observer.

    A subclass says how its library is opened, and what it is told. Where the library is missing, or fails at any time,
    there is one warning, and the run goes on without it.

    Args:
        beside: Watches the run, too; the logger `l0prune` by default.
    """

    library = ""
    """Its name, for messages."""

    def __init__(self, *, beside: Observer | None = None) -> None:
        self._beside, self._works, self._offset, self._last = beside or LoggingObserver(), True, 0, 0

    def open(self, settings: Flat, folder: Path) -> None:
        """Begin: the run's settings, and its folder."""
        raise NotImplementedError

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers by name at a step, counted over both stages."""
        raise NotImplementedError

    def close(self, summary: Mapping[str, float]) -> None:
        """End: what the run has achieved."""
        raise NotImplementedError

    def prepared(self, task: Task, gated: GatedModel, config: RunConfig, folder: Path) -> None:
        """Open the tracker."""
        self._beside.prepared(task, gated, config, folder)
        self._told(lambda: self.open(flat(asdict(config)), folder))

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        """Steps of the second stage follow those of the first."""
        self._offset = self._last if name == "further" and not done else self._offset
        self._beside.stage_begins(name, steps, done)

    def record(self, record: Record) -> None:
        """Numbers of a logging step."""
        self._beside.record(record)
        self._last = self._offset + record.step
        values = {
            f"{record.stage}/{name}": float(value)
            for name, value in flat({k: v for k, v in asdict(record).items() if k not in ("stage", "steps")}).items()
            if isinstance(value, float | int)
        }
        self._told(lambda: self.log(values, self._last))

    def compacted(self, step: int, parameters: int) -> None:
        """Parameters that are left."""
        self._beside.compacted(step, parameters)

    def note(self, text: str) -> None:
        """Hand on."""
        self._beside.note(text)

    def finished(self, report: CompressionReport) -> None:
        """Numbers of the report, and the end."""
        self._beside.finished(report)
        named = {name: value for name, value in report.to_json().items() if isinstance(value, float | int)}
        self._told(lambda: self.close({name: float(value) for name, value in named.items()}))

    def _told(self, tell: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            tell()
        except ConfigError:
            raise
        except Exception as error:
            self._works = False
            got = one_line(f"{type(error).__name__}: {error}")
            warnings.warn(f"{self.library} hears nothing more of this run, which goes on ({got})", stacklevel=4)


class ProjectObserver(TrackingObserver):
    """A tracker whose runs belong to a project: `init` begins one, and the run takes dictionaries.

    Args:
        project: The project's name.
        beside: Watches the run, too.
        settings: Further arguments of the library's `init`.
    """

    def __init__(self, project: str, *, beside: Observer | None = None, **settings: Any) -> None:
        super().__init__(beside=beside)
        self._project, self._settings, self._run = project, settings, None

    def module(self) -> Any:
        """The library."""
        raise NotImplementedError

    def open(self, settings: Flat, folder: Path) -> None:
        """Begin a run, named as its folder."""
        given = {"name": folder.name, **self._settings}
        self._run = self.module().init(project=self._project, config=dict(settings), **given)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A point on each curve."""
        assert self._run is not None
        self._run.log(dict(values), step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        """The last points, and the end of the run."""
        assert self._run is not None
        self._run.log({f"report/{name}": value for name, value in summary.items()})
        self._run.finish()


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as names with dots, without what is empty."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, float | int | str | bool):
            found[f"{prefix}{name}"] = value
    return found
