"""The command line, run in this process."""

import contextlib
import io
import sys
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """One line on stderr that holds `words`, nothing on stdout, exit status 2."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.startswith("l0prune: error: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n")
        for word in words:
            assert word in self.err, self.err

    def succeeded(self) -> "Outcome":
        assert self.code == 0, self
        return self


def call(*arguments: object) -> Outcome:
    """Run `l0prune ARGUMENTS` in this process."""
    from l0prune_cli.main import main

    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["l0prune", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_:
            main()
    finally:
        sys.argv = before
    return Outcome(code=int(exit_.value.code or 0), out=out.getvalue(), err=err.getvalue())
