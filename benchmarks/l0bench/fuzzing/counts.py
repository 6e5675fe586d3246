"""The counts of all runs: a row for each seed and reader, to which later runs add."""

import json
from pathlib import Path
from typing import Any

from l0bench.fuzzing.children import OUTCOMES, Batch
from l0bench.fuzzing.readers import READERS
from l0bench.result_rows import commit_of
from l0prune.support import write_json, write_text


class Counts:
    """The rows of a results file.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []

    def begun(self, seed: int) -> dict[str, int]:
        """By reader, the first input of a seed that was not read yet."""
        return {row["reader"]: row["inputs"] for row in self.rows if row["seed"] == seed}

    def add(self, seed: int, reader: str, batch: Batch) -> None:
        """Add what became of some inputs."""
        keys = {"seed": seed, "reader": reader}
        row = next((row for row in self.rows if keys.items() <= row.items()), None)
        if row is None:
            row = {**keys, "inputs": 0, **dict.fromkeys(OUTCOMES, 0)}
            row |= {"cpu_seconds": 0.0, "slowest_seconds": 0.0, "faults": []}
            self.rows.append(row)
        row["inputs"] = batch.next
        for name in OUTCOMES:
            row[name] += batch.counts[name]
        row["cpu_seconds"] = round(row["cpu_seconds"] + batch.cpu_seconds, 2)
        row["slowest_seconds"] = round(max(row["slowest_seconds"], batch.slowest_seconds), 3)
        row["faults"] += batch.faults
        row["commit"] = commit_of("l0prune", "plugins", "cli", "benchmarks")

    def write(self) -> None:
        """The file, and a table beside it."""
        write_json(self.path, {"rows": self.rows})
        write_text(self.path.with_suffix(".md"), self.table())

    def table(self) -> str:
        """All seeds together, as Markdown."""
        columns = ("inputs", *OUTCOMES, "slowest, CPU s", "inputs per CPU s")
        lines = [f"| reader | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        for name in (*READERS, "all"):
            rows = [row for row in self.rows if name in (row["reader"], "all")]
            if rows:
                total = [sum(row[column] for row in rows) for column in ("inputs", *OUTCOMES, "cpu_seconds")]
                slowest = max(row["slowest_seconds"] for row in rows)
                cells = [f"{count:,}" for count in total[:-1]]
                cells += [f"{slowest:.2f}", f"{total[0] / max(total[-1], 0.01):,.0f}"]
                lines.append(f"| {name} | {' | '.join(cells)} |")
        seeds = sorted({row["seed"] for row in self.rows})
        said = f"Seeds {', '.join(map(str, seeds))}; `python benchmarks/fuzz.py --minutes N --seed S` adds to them."
        return "\n".join([said, "", *lines]) + "\n"
