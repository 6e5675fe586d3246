"""What is disturbed: whole runs in one process and two, resuming, sampling of times, reports and exports."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import l0prune
from l0bench.fuzzing.samples import make_samples
from l0bench.survival import short_runs, short_speech
from l0prune.report import run_facts

_EXPORTED = "run/exports/dphubert.pth"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An action that can be disturbed, and what brings it to the same end then."""

    act: Callable[[Path], None]
    """In a folder that `prepare` made."""
    go_on: Callable[[Path], None]
    """After a disturbance: to the end that `act` has without one."""
    end: Callable[[Path], dict[str, Any]]
    """What must be the same at the end."""
    prepare: Callable[[Path], None] = lambda folder: folder.mkdir()
    """Makes the folder."""
    look: Callable[[Path], None] | None = None
    """Reads what is there, in a process of its own: before the call at which `act` is disturbed, and after that."""
    processes: int = 1


def _run(**settings: Any) -> dict[str, Callable[[Path], Any]]:
    def end(folder: Path) -> dict[str, Any]:
        return short_runs.facts(folder / "run")

    return {
        "act": lambda folder: short_runs.begin(folder / "run", **settings),
        "go_on": lambda folder: short_runs.go_on(folder / "run", **settings),
        "end": end,
    }


def _look(folder: Path) -> None:
    """Read a live run as other processes may; a refusal is one line."""
    run = folder / "run"
    elsewhere = folder.with_name(f"{folder.name}-page") / "report.html"
    for reading in (
        lambda: l0prune.write_report([run], out=elsewhere),
        lambda: l0prune.verify(run, build=short_runs.build),
        lambda: l0prune.load(run, short_runs.build),
        lambda: l0prune.export(run, to="safetensors", out=elsewhere.with_name("export"), build=short_runs.build),
    ):
        _refused_at_most(reading)


def _look_at_speech(folder: Path, clips: Path) -> None:
    """The same for a run whose plugin scores encoders, and has formats of its own."""
    run, elsewhere = folder / "run", folder.with_name(f"{folder.name}-page")
    asked = l0prune.EvaluationSettings(
        tasks=("keyword",), data=(str(clips),), device="cpu", seeds=(0,), max_minutes=0.1
    )
    for reading in (
        lambda: l0prune.write_report([run], out=elsewhere / "report.html"),
        lambda: l0prune.verify(run),
        lambda: l0prune.evaluate([run], plugin="speech", settings=asked, note=lambda _: None),
        lambda: l0prune.export(run, to="dphubert", out=elsewhere / "export.pth"),
    ):
        _refused_at_most(reading)


def _refused_at_most(reading: Callable[[], object]) -> None:
    try:
        reading()
    except l0prune.L0PruneError as error:
        if "\n" in str(error):
            raise AssertionError(f"no single line: {error}") from error


def _export(folder: Path) -> None:
    l0prune.export(folder / "run", to="dphubert")


def _exported(folder: Path) -> dict[str, Any]:
    """The export holds, and the run holds what it held."""
    found = l0prune.verify(folder / _EXPORTED, plugin="speech")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    content = {name: path.read_bytes() for name, path in files.items() if path.suffix not in (".pth", ".lock")}
    return {"checks": [(check.name, check.holds, check.said) for check in found.checks], **content}


def _cached(action: Callable[[Path], None]) -> Callable[[Path], None]:
    """With a cache in the folder."""

    def act(folder: Path) -> None:
        with _cache(folder / "cache"):
            action(folder)

    return act


@contextmanager
def _cache(place: Path) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(place)
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


class Materials:
    """Runs that scenarios begin with.

    Args:
        folder: Where they are made, unless they are there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.interrupted, self.finished = folder / "interrupted", folder / "finished"
        self.samples = folder / "samples"
        self.speech = self.samples / "whole"
        if not self.samples.exists():
            clock = time.perf_counter, time.sleep
            short_runs.interrupt(self.interrupted)
            short_runs.begin(self.finished)
            time.perf_counter, time.sleep = clock
            self.samples.mkdir()
            make_samples(self.samples)
            short_speech.make(folder / "speech")

    def scenarios(self) -> dict[str, Scenario]:
        """By name."""
        latency = _run(**short_runs.LATENCY)
        latency |= {name: _cached(latency[name]) for name in ("act", "go_on")}
        return {
            "run": Scenario(**_run()),
            "run, two processes": Scenario(**_run(), processes=2),
            "resumed": Scenario(
                prepare=lambda folder: short_runs.copied(self.interrupted, folder / "run"),
                **{**_run(), "act": lambda folder: short_runs.go_on(folder / "run")},
            ),
            "run for latency": Scenario(**latency),
            "report of a live run": self._report(self.interrupted),
            "report of a finished run": self._report(self.finished),
            "export": Scenario(
                prepare=lambda folder: short_runs.copied(self.speech, folder / "run"),
                act=_export,
                go_on=lambda folder: None if (folder / _EXPORTED).exists() else _export(folder),
                end=_exported,
            ),
            "live run, read": Scenario(**_run(), look=_look),
            "live speech run, read": self._read_speech(),
        }

    def _read_speech(self) -> Scenario:
        """A run of the speech plugin, read by `report`, `verify`, `evaluate` and `export`."""
        teacher, clips = str(self.folder / "speech" / "teacher.safetensors"), self.folder / "speech" / "clips"
        settings = short_speech.settings(teacher, clips)
        return Scenario(
            act=lambda folder: short_speech.begin(folder / "run", settings),
            go_on=lambda folder: short_speech.go_on(folder / "run", settings),
            end=lambda folder: short_runs.facts(folder / "run"),
            look=lambda folder: _look_at_speech(folder, clips),
        )

    def _report(self, run: Path) -> Scenario:
        def act(folder: Path) -> None:
            l0prune.write_report([folder / "run"])

        def end(folder: Path) -> dict[str, Any]:
            content = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            facts = json.dumps(run_facts(folder / "run", "run").to_json()).replace(str(folder), "")
            # Pages name their place.
            return {"facts": facts} | {
                name: path.read_bytes() for name, path in content.items() if path.suffix != ".html"
            }

        return Scenario(prepare=lambda folder: short_runs.copied(run, folder / "run"), act=act, go_on=act, end=end)


def emptied(folder: Path) -> Path:
    """The path, where nothing is any more."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder
