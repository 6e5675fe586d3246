"""Whether a run or an export is what was made, found out from its files."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from os.path import exists, isfile  # Unlike those of a Path, for any name: it may be longer than a path's.
from pathlib import Path
from typing import Any

from torch import nn

from l0prune.errors import ConfigError, L0PruneError
from l0prune.storage import DESCRIPTION
from l0prune.support import known_arguments
from l0prune.workflows.verification.common import Unknown
from l0prune.workflows.verification.exports import export_checks
from l0prune.workflows.verification.saved import Saved


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    holds: bool | None
    """None where there is nothing to check by."""
    said: str
    """What was found, or why it cannot be checked."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found of one source; the last check is the first that does not hold, if there is one."""

    source: str
    checks: tuple[Check, ...]

    @property
    def broken(self) -> Check | None:
        """The check that does not hold."""
        return next((check for check in self.checks if check.holds is False), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `holds` is false where a check does not hold."""
        return {**asdict(self), "holds": self.broken is None}


@known_arguments
def verify(
    source: str | Path,
    *,
    build: Callable[[], nn.Module] | None = None,
    against: str | None = None,
    repeat: bool = False,
    plugin: str | None = None,
) -> Verification:
    """Check that a run, a saved network or an export is whole, and that it is what it says. Nothing is written.

    Args:
        source: A run directory, a folder of `save`, or an exported file or folder.
        build: Makes the dense network of a folder that names no plugin.
        against: A teacher, to which the stored plan is applied anew.
        repeat: Make the run again from its config.toml, in a temporary folder, and compare the weights bit for bit.
        plugin: Who opens what is no run; a run names its own.

    Returns:
        The checks in their order, up to the first that does not hold.

    Raises:
        ConfigError: There is no such file, or `against` or `repeat` are asked of what is no run.
    """
    path = Path(source)
    is_run = isfile(path / DESCRIPTION) or isfile(path / "config.toml")
    if is_run:
        subject = Saved(path, build)
        checks = subject.checks(against, repeat)
    elif against is not None or repeat:
        raise ConfigError("only a run can be made again or compared with a teacher", where=source)
    elif not exists(path):
        raise ConfigError("no such file or folder", where=source)
    else:
        checks = export_checks(path, plugin)
    found: list[Check] = []
    for name, check in checks:
        found.append(_tried(name, check))
        if found[-1].holds is False:
            break
    return Verification(source=str(source), checks=tuple(found))


def _tried(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name=name, holds=True, said=check())
    except Unknown as reason:
        return Check(name=name, holds=None, said=str(reason))
    except L0PruneError as error:
        return Check(name=name, holds=False, said=str(error))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # What a foreign file holds in the place of what was expected.
        return Check(name=name, holds=False, said=f"not understood: {type(error).__name__}: {error}")
