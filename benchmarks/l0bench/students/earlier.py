"""Students of a results file that was written before, on this machine or another."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import l0prune
from l0bench.students.entries import Entry
from l0bench.students.making import Comparison
from l0prune import DataError, RunError
from l0prune.support import read_json


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What such a file holds; nothing by default."""

    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of students, by name."""
    references: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name."""
    tasks: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, comparison: Comparison, probe_seeds: tuple[int, ...]) -> "Earlier":
        """Open a results file.

        Args:
            path: What `ablations.py` wrote.
            comparison: Whose settings must be those of the file.
            probe_seeds: Likewise, where students are scored.

        Raises:
            DataError: It cannot be read.
            RunError: Its students were made or scored otherwise.
        """
        try:
            found = read_json(path)
            rows, references = ({row["name"]: row for row in found[key]} for key in ("entries", "references"))
            expected = {"recipe": comparison.recipe, "settings": l0prune.describe(comparison.config())}
            if probe_seeds and found["probe_seeds"]:
                expected["probe_seeds"] = list(probe_seeds)
            for key, value in expected.items():
                if found[key] != value:
                    raise RunError(f"results are of other {key.replace('_', ' ')}", where=path, hint="leave it out")
            return cls(rows=rows, references=references, tasks=found["tasks"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError("not a file of results", where=path, got=error) from error

    def unscored(self) -> "Earlier":
        """Without any score: those of other labelled data say nothing beside new ones."""
        rows = {
            name: {**row, "seeds": [{**facts, "scores": {}} for facts in row["seeds"]]}
            for name, row in self.rows.items()
        }
        return replace(self, rows=rows, references={}, tasks={})

    def student(self, entry: Entry, seed: int) -> Mapping[str, Any] | None:
        """Facts and scores of a student, if the file has it and the entry is still what it was."""
        row = self.rows.get(entry.name)
        described = {"start": entry.start, "settings": dict(entry.settings), "data_every": entry.data_every}
        if row is None or any(row[key] != value for key, value in described.items()):
            return None
        return next((facts for facts in row["seeds"] if facts["seed"] == seed), None)
