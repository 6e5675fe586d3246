"""Who watches a run."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from l0prune.config import RunConfig
from l0prune.gates import GatedModel
from l0prune.plugin import STAGES, Task
from l0prune.support import Registry, say
from l0prune.training import Record
from l0prune.workflows.results import CompressionReport


class Observer:
    """Watches a run; every method may be overridden, none needs to be."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End, after an error too."""

    def prepared(self, task: Task, gated: GatedModel, config: RunConfig, folder: Path) -> None:
        """Model, groups and data are ready and the groups are proved."""

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        """A training stage begins, or goes on after `done` steps."""

    def record(self, record: Record) -> None:
        """A logging step."""

    def compacted(self, step: int, parameters: int) -> None:
        """Units that had closed for good have left the network; so many parameters are in it still."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def counting(self, what: str, items: Iterable[Any]) -> Iterator[Any]:
        """Items that are gone through now, each of which may take a while; hands them on."""
        return iter(items)

    def finished(self, report: CompressionReport) -> None:
        """The run is complete."""


class LoggingObserver(Observer):
    """Says what goes on by the logger `l0prune`, for programs without a terminal."""

    def prepared(self, task: Task, gated: GatedModel, config: RunConfig, folder: Path) -> None:
        """Say what will be pruned."""
        size = gated.size_model
        most = size.shown(gated.gates.budget)
        say(f"{task.teacher}: {size.shown(size.total)} {size.counts}, at most {most} will stay")
        for name, value in task.facts.items():
            say(f"{name}: {value}")

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        """Say which."""
        say(f"{STAGES.get(name, name)}: {steps} steps" + (f", going on from {done}" if done else ""))

    def compacted(self, step: int, parameters: int) -> None:
        """Say that the network shrank."""
        say(f"step {step}: closed units left; {parameters:,} parameters are in the network")

    def note(self, text: str) -> None:
        """Say it."""
        say(text)

    def finished(self, report: CompressionReport) -> None:
        """Say what is left."""
        say(f"{report.params_after:,} of {report.params_before:,} parameters are left: {report.run_directory}")


class _Several(Observer):
    """Hands all on to several observers; what is counted, to the last one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def prepared(self, task: Task, gated: GatedModel, config: RunConfig, folder: Path) -> None:
        for one in self._observers:
            one.prepared(task, gated, config, folder)

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        for one in self._observers:
            one.stage_begins(name, steps, done)

    def record(self, record: Record) -> None:
        for one in self._observers:
            one.record(record)

    def compacted(self, step: int, parameters: int) -> None:
        for one in self._observers:
            one.compacted(step, parameters)

    def note(self, text: str) -> None:
        for one in self._observers:
            one.note(text)

    def counting(self, what: str, items: Iterable[Any]) -> Iterator[Any]:
        return self._observers[-1].counting(what, items)

    def finished(self, report: CompressionReport) -> None:
        for one in self._observers:
            one.finished(report)


_DISPLAYS: Registry[str, type[Observer]] = Registry("display", own=("l0prune.adapters.terminal",))
"""What `progress=True` shows a run by; adapters register it, which stand above this floor."""
_TERMINAL = "terminal"


def register_display(display: type[Observer], *, replace: bool = False) -> None:
    """Let `progress=True` show runs by an observer.

    Args:
        display: A class that needs no arguments.
        replace: Take the place of the one that is registered.

    Raises:
        ConfigError: There is one already.
    """
    _DISPLAYS.register(_TERMINAL, display, replace=replace)


@contextmanager
def watched(observer: Observer | None, progress: bool, *, speaks: bool = True) -> Iterator[Observer]:
    """Who watches: an observer, the terminal, or both; by default the logger `l0prune`.

    Args:
        observer: The caller's.
        progress: Whether the terminal shows what goes on.
        speaks: Whether this process does; of several one speaks for all.
    """
    with ExitStack() as stack:
        if not speaks:
            yield Observer()
            return
        watchers = [observer or LoggingObserver()]
        if progress:
            _DISPLAYS.load()
            watchers.append(stack.enter_context(_DISPLAYS[_TERMINAL]()))
        yield watchers[0] if len(watchers) == 1 else _Several(watchers)


class Counted:
    """Items that can be gone through several times, each time counted by an observer.

    Args:
        items: A list or a loader.
        observer: Who counts.
        what: They are.
    """

    def __init__(self, items: Iterable[Any], observer: Observer, what: str) -> None:
        self._items, self._observer, self._what = items, observer, what

    def __iter__(self) -> Iterator[Any]:
        return self._observer.counting(self._what, self._items)
