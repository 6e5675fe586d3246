"""What benchmarks of `l0prune.compress` share: how a row is measured and kept."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from l0bench.result_rows import ResultRows, Row, commit_of
from l0prune import Interrupted, L0PruneError
from l0prune.measuring import processor
from l0prune.support import versions


class Wish(Protocol):
    """A run that is wished for."""

    def row(self) -> Row:
        """As a row of results begins."""
        ...


def measured(wished: Wish, figures: Callable[[], Row]) -> Row:
    """A row of results.

    Args:
        wished: What was run.
        figures: Compresses and scores.

    Returns:
        The fields of the wish, its figures, and where they were measured; `failed` in place of the figures where an
        error of the library's ended it.
    """
    began = time.perf_counter()
    try:
        found = figures()
    except Interrupted:
        # Not a result.
        raise
    except L0PruneError as error:
        found = {"failed": str(error)}
    place = {
        "seconds_in_all": round(time.perf_counter() - began, 1),
        "processor": processor(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": versions("torchaudio", "transformers"),
    }
    return wished.row() | found | place


def add_missing(
    rows: ResultRows,
    wished: Sequence[Wish],
    run: Callable[[Any, Path], Row],
    *,
    material: Path,
    line: Callable[[Row], str],
    sources: Sequence[str],
) -> int:
    """Run what is not there, and keep each row as it comes.

    Args:
        rows: Those that are there.
        wished: Of one class, which is made of the fields of a row.
        run: Gives the row of a wish.
        material: The folder that keeps what was brought.
        line: A row in words.
        sources: What a row's commit speaks for.

    Returns:
        The exit status.
    """
    kind, commit = type(wished[0]), commit_of(*sources)
    missing = rows.missing([one.row() for one in wished])
    print(f"{len(missing)} rows to run", flush=True)
    for wish in missing:
        row = run(kind(**wish), material.absolute())
        rows.append(row | {"commit": commit})
        print(line(row), flush=True)
    return 0
