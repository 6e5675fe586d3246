"""A run's folder: its settings, metrics, checkpoints and results."""

import hashlib
import json
import math
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from itertools import count
from os.path import isfile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from l0prune.errors import RunError
from l0prune.storage.checkpoint import Origin, checkpoints, newest_checkpoint
from l0prune.support import (
    Busy,
    check_inside,
    free_bytes,
    locked,
    parse_json,
    read_json,
    read_toml,
    remove,
    write_json,
    write_text,
    write_toml,
)

LOOP, OWN_LOOP = "wrap", "own loop"
"""In the place of a plugin's and a recipe's name, where the caller's own training loop made the run."""
_NO_PLUGINS = ("task", LOOP)
_PARTIAL = ".*.partial*"
"""Names of files while they are written."""

_SINCE: Mapping[str, object] = {
    "joint.final_rate": 0.0,
    "further.final_rate": 0.0,
    "gates.uniform": False,
    "joint.fake_int8": "",
    "further.fake_int8": "",
    "elastic.largest": 1.0,
    "elastic.sizes": 1,
}
"""Settings that came later than the first runs, with what was done before there were any."""


class RunDirectory:
    """Paths of a run, and the rules for beginning and continuing one.

    Args:
        path: The folder; it need not exist.

    Raises:
        RunError: No folder can have this path.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.exists()
        except OSError as error:
            raise RunError("cannot be a folder", where=path, got=error.strerror, hint="choose another --out") from error
        self.path = path
        self.settings = path / "config.toml"
        self.metrics = path / "metrics.jsonl"
        self.report = path / "report.json"
        self.picture = path / "architecture.png"
        self.latency = path / "latency.json"
        self.order = path / "order.json"
        self.checkpoints = path / "checkpoints"
        self.identity = path / "run.json"
        self.lock = path / "run.lock"
        self.origin: Origin = {"run": None, "settings": ""}
        """What marks the checkpoints of the run; known once it has begun or is resumed."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder to this process; one that is made for it and stays empty is removed again.

        Raises:
            Busy: Another process writes to it.
            RunError: It cannot be made or written.
        """
        made = [folder for folder in (self.path, *self.path.absolute().parents) if not folder.exists()]
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.callback(_remove_empty, made)
                stack.enter_context(locked(self.lock, self.path))
            except OSError as error:
                hint = "choose another --out"
                raise RunError("cannot write", where=self.path, got=error.strerror, hint=hint) from error
            yield

    def check_free(self) -> None:
        """Raise a `RunError` where something is already there."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError("not a folder", where=self.path, hint="choose another --out")
        if self.settings.exists():
            hint = "choose another --out" if self.report.exists() else "go on with --resume or choose another --out"
            raise RunError("folder holds another run", where=self.path, hint=hint)
        if self.path.is_dir() and not all(map(self._is_left, self.path.iterdir())):
            raise RunError("folder is not empty", where=self.path, hint="choose another --out")

    def _is_left(self, path: Path) -> bool:
        """Whether something is what a process leaves that is killed before it has begun its run."""
        if path == self.checkpoints:
            return path.is_dir() and not any(path.iterdir())
        return path in (self.lock, self.identity) or fnmatch(path.name, _PARTIAL)

    def begin(self, settings: Mapping[str, Any], may_change: Container[str] = ()) -> None:
        """Make the folder and record the settings, and what tells this run from all others.

        Args:
            settings: Nested tables.
            may_change: As `resume` takes it.

        Raises:
            RunError: The folder is taken or cannot be written.
        """
        self.check_free()
        existed = self.path.exists()
        try:
            write_json(self.identity, {"run": secrets.token_hex(16)})
            self.sweep()
            self.checkpoints.mkdir(exist_ok=True)
            # Last: a folder with settings holds a run.
            write_text(self.settings, write_toml(settings))
        except (RunError, OSError) as error:
            # They stand there where the disk failed after the file got its name; without an identity they are no run.
            self.settings.unlink(missing_ok=True)
            self.identity.unlink(missing_ok=True)
            _remove_empty([self.checkpoints])
            if not existed:
                _remove_empty([self.path])
            if isinstance(error, RunError):
                raise
            hint = "free some space or choose another --out"
            raise RunError("cannot write", where=self.checkpoints, got=error.strerror, hint=hint) from error
        self.origin = self._origin(may_change)

    def _origin(self, may_change: Container[str]) -> Origin:
        """What the checkpoints of this run say of it; a run of earlier versions has no name."""
        name = read_json(self.identity) if isfile(self.identity) else {"run": None}
        run = name.get("run") if isinstance(name, dict) else name
        if not isinstance(run, str | None):
            raise RunError("damaged file", where=self.identity, got=repr(run), expected="the name of a run")
        began = sorted(
            (key, value) for key, value in _flatten(read_toml(self.settings)).items() if key not in may_change
        )
        return {"run": run, "settings": hashlib.sha256(repr(began).encode()).hexdigest()}

    def check_begun(self) -> None:
        """Raise a `RunError` where there is nothing to resume."""
        if not isfile(self.settings):
            raise RunError("nothing to resume", where=self.path, hint="start the run without --resume")
        if isfile(self.report):
            raise RunError("nothing to resume: the run is complete", where=self.path, hint="choose another --out")

    def began_with(self) -> dict[str, Any]:
        """The nested settings of the run; none where there are none to resume."""
        return read_toml(self.settings) if isfile(self.settings) and not isfile(self.report) else {}

    def resume(
        self,
        settings: Mapping[str, Any],
        may_change: Container[str] = (),
        later: Mapping[str, object] = MappingProxyType({}),
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest whole checkpoint, or None where the run had not saved one yet; and a word on each damaged one.

        Args:
            settings: Those of now.
            may_change: Dotted names of settings that may differ from those the run began with.
            later: Dotted names of settings that a run of before them lacks, with what was done then.

        Raises:
            RunError: There is nothing to resume, the settings differ from those the run began with, the newest
                checkpoint is another run's, or what would be written leaves the folder.
        """
        self.check_begun()
        for path in (self.metrics, self.latency, self.checkpoints):
            check_inside(path, self.path)
        since = {**_SINCE, **later}
        began, now = _flatten(read_toml(self.settings)), _flatten(json.loads(json.dumps(settings)))
        for key in sorted({*began, *now}):
            if key not in began and (key.startswith("one_shot.") or (key, now[key]) in since.items()):
                continue  # A run of before this setting, which has no effect there, or says what was done without it.
            if began.get(key) != now.get(key) and key not in may_change:
                raise RunError(
                    "settings differ from those the run began with",
                    where=key,
                    got=now.get(key),
                    expected=began.get(key),
                    hint="resume with the same settings, or choose another --out",
                )
        self.origin = self._origin(may_change)
        return newest_checkpoint(self.checkpoints, self.origin)

    def check_space(self, state_bytes: int) -> None:
        """Check that the checkpoints of a run will fit on the disk.

        Args:
            state_bytes: Size of one at the largest.

        Raises:
            RunError: They will not.
        """
        held = sum(path.stat().st_size for path in checkpoints(self.checkpoints))
        free = free_bytes(self.path) + held
        if free < state_bytes:
            raise RunError(
                "too little disk for checkpoints",
                where=self.path,
                got=f"{free / 1e6:,.1f} MB free",
                expected=f"{state_bytes / 1e6:,.1f} MB",
                hint="free some space, choose another --out, or lower `keep_checkpoints`",
            )

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(row), allow_nan=False) + "\n")
        except OSError as error:
            raise RunError("cannot write", where=self.metrics, got=error.strerror, hint="free some space") from error

    def sweep(self, keep: int | None = None) -> None:
        """Delete what a killed process was about to write, and the checkpoints that it was about to delete.

        Args:
            keep: How many checkpoints are left; all by default.
        """
        old = checkpoints(self.checkpoints)[:-keep] if keep else []
        for leftover in [*self.path.rglob(_PARTIAL), *old]:
            with suppress(OSError):
                remove(leftover)

    def rewind_metrics(self, position: int) -> None:
        """Drop lines that were written after optimizer step `position`, to be written again, and damaged ones."""
        if self.metrics.exists():
            lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and _position(line) <= position]
            write_text(self.metrics, "".join(kept))


def _position(line: str) -> float:
    """Of a line of metrics.jsonl; infinite where the line is damaged."""
    try:
        position = parse_json(line)["position"]
    except (ValueError, LookupError, TypeError):
        return math.inf
    return position if isinstance(position, int) else math.inf


def read_report(folder: str | Path) -> Mapping[str, Any] | None:
    """A run's report.json; None where there is none, or no such folder can be.

    Raises:
        RunError: The file is damaged.
    """
    path = Path(folder) / "report.json"
    # Unlike Path.is_file, for any name: it may be longer than a path's.
    if not isfile(path):
        return None
    content = read_json(path)
    teacher = content.get("teacher") if isinstance(content, dict) else None
    if not isinstance(teacher, str):
        expected = "an object with the name of the `teacher`"
        raise RunError("damaged file", where=path, got=f"teacher = {teacher!r}", expected=expected)
    return content


def run_plugin(folder: str | Path) -> str | None:
    """The plugin of a run, finished or not; None for what is no run, and for a run of a caller's own code."""
    path = Path(folder)
    content: Any = None
    # Unlike Path.is_file, for any name: it may be longer than a path's.
    if isfile(path / "model.json"):
        content = read_json(path / "model.json")
    elif isfile(path / "config.toml"):
        content = read_toml(path / "config.toml")
    plugin = content.get("plugin") if isinstance(content, dict) else None
    return plugin if isinstance(plugin, str) and plugin not in _NO_PLUGINS else None


def claim_free(base: Path, claims: ExitStack) -> RunDirectory:
    """`base`, or `base-2`, `base-3`, ...: the first that does not exist, held as long as `claims` are."""
    for number in count(1):
        folder = RunDirectory(base if number == 1 else base.with_name(f"{base.name}-{number}"))
        if not folder.path.exists():
            # Another process may have taken it since.
            with suppress(Busy):
                claims.enter_context(folder.held())
                return folder
    raise AssertionError("there is always another number")


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the innermost first, up to one that holds something."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _finite(value: Any) -> Any:
    """The same value with null for inf and nan, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
