"""Other Python processes, which take no module from the current folder: a `torch.py` that lies there is not run."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SAFE_PATH = "PYTHONSAFEPATH"


def python(*arguments: str) -> list[str]:
    """The command that runs this Python with `arguments`, such as `-m` and a module's name."""
    return [sys.executable, "-P", *arguments]


@contextmanager
def safe_children() -> Iterator[None]:
    """The same for every process that is started meanwhile: by torch's compiler, by pools, by loaders of data."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before
