"""Errors a user can cause. Each is one line: what, where, got, expected, and what to do next."""

import difflib
from collections.abc import Iterable

_MOST_LETTERS = 1000
"""Of a fact in a message."""


class L0PruneError(Exception):
    """Base of every error that a user can cause; the command line prints it and exits with status 2.

    Args:
        what: What went wrong, as a short sentence without a full stop.
        where: The file, module, setting or step it concerns.
        got: The value that was found.
        expected: What would have been right.
        hint: What to do next.
    """

    def __init__(
        self, what: str, *, where: object = None, got: object = None, expected: object = None, hint: str | None = None
    ) -> None:
        self.what, self.where, self.got, self.expected, self.hint = what, where, got, expected, hint
        line = what if where is None else f"{what}: {_shown(where)}"
        facts = [f"{name} {_shown(fact)}" for name, fact in (("got", got), ("expected", expected)) if fact is not None]
        line = f"{line} ({', '.join(facts)})" if facts else line
        super().__init__(_printable(f"{line}; {hint}" if hint else line))


def _shown(fact: object) -> str:
    """A fact as text, without its middle where a file has made it long."""
    text = str(fact)
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS // 2]} ... {text[-_MOST_LETTERS // 4 :]}"


def _printable(text: str) -> str:
    """One line that moves no cursor: what a file's names hold of line ends and control characters is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ConfigError(L0PruneError):
    """A setting, recipe or flag that cannot be used."""


class TargetError(ConfigError):
    """A size target that no plan can meet."""


class PluginError(L0PruneError):
    """A plugin that is missing, broken or incompatible."""


class DataError(L0PruneError):
    """Input data that cannot be used."""


class GroupError(L0PruneError):
    """A prune group that does not fit its model."""


class TraceError(L0PruneError):
    """A model whose forward pass cannot be followed."""


class PlanError(L0PruneError):
    """A removal plan that does not fit its model."""


class ProofError(L0PruneError):
    """A model whose pruned outputs would differ from its gated outputs."""


class RunError(L0PruneError):
    """A run directory or checkpoint that cannot be used."""


class DamagedCheckpoint(RunError):
    """A checkpoint that is not what was written."""


class TrainingError(L0PruneError):
    """A training run that cannot go on."""


class FailedElsewhere(L0PruneError):
    """Another process of the run failed, and shows its error itself."""


class Interrupted(L0PruneError):
    """A run stopped by a signal after saving its state.

    Args:
        signal_number: The signal that stopped it.
        hint: How to go on.
    """

    def __init__(self, signal_number: int, *, where: object, hint: str) -> None:
        self.signal_number = signal_number
        super().__init__("interrupted, state saved", where=where, hint=hint)


def nearest(name: str, choices: Iterable[str], *, or_all: bool = True) -> str:
    """A hint naming the choice most like `name`, whatever the case; when none is near all of them, or nothing."""
    choices = sorted(choices)
    by_folded = {choice.casefold(): choice for choice in reversed(choices)}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean {by_folded[close[0]]!r}?"
    return f"choose one of {', '.join(choices) or '(none)'}" if or_all else ""
