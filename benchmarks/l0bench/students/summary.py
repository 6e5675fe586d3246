"""Means and deviations over training seeds, who is ahead of whom, and all of it as a table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from l0bench.students.entries import METHOD, Entry
from l0bench.students.scoring import scores_by_task

Rows = Sequence[Mapping[str, Any]]
_LEFT_OUT = ("name", "settings", "start", "data_every", "versions", "file", "path")
"""What the row says already, and places on this machine."""


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample; 0 for a single value) beside the values."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"values": list(values), "mean": statistics.fmean(values), "deviation": deviation}


def seed_row(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """One student: its facts, and its scores if it was scored, each the mean over its probes."""
    scores = scores_by_task(evaluation) if evaluation else {}
    kept = {key: value for key, value in facts.items() if key not in _LEFT_OUT}
    return {**kept, "scores": {task: statistics.fmean(values) for task, values in scores.items()}}


def row(entry: Entry, sparsity: float, seeds: Rows) -> dict[str, Any]:
    """One entry over its training seeds.

    Args:
        entry: Which student.
        sparsity: What was asked for.
        seeds: As `seed_row` makes them. A task counts those that were scored on it.
    """
    losses = [seed["loss"] for seed in seeds]
    tasks = dict.fromkeys(task for seed in seeds for task in seed["scores"])
    return {
        "name": entry.name,
        "answers": entry.answers,
        "start": entry.start,
        "settings": dict(entry.settings),
        "data_every": entry.data_every,
        "target_sparsity": sparsity,
        "parameters": statistics.fmean(seed["parameters"] for seed in seeds),
        "macs": statistics.fmean(seed["macs"] for seed in seeds),
        "seconds": statistics.fmean(seed["seconds"] for seed in seeds),
        "loss": None if None in losses else spread(losses),
        # The deviation is that between students.
        "scores": {task: spread([s["scores"][task] for s in seeds if task in s["scores"]]) for task in tasks},
        "seeds": list(seeds),
    }


def reference_row(name: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """A model that is not trained here; its deviation is that between probe seeds."""
    return {
        "name": name,
        "parameters": evaluation["models"][name]["parameters"],
        "scores": {task: spread(values) for task, values in scores_by_task(evaluation).items()},
    }


def lead(one: Mapping[str, Any], other: Mapping[str, Any], tasks: Mapping[str, Any]) -> dict[str, float]:
    """By how many standard deviations one row is ahead of another, by task.

    The deviation is the larger one of the two. Single students have none, and are not judged.
    """
    found = {}
    for task in one["scores"].keys() & other["scores"].keys() & tasks.keys():
        mine, theirs = one["scores"][task], other["scores"][task]
        if min(len(mine["values"]), len(theirs["values"])) < 2:
            continue
        ahead = (mine["mean"] - theirs["mean"]) * (1 if tasks[task]["higher_is_better"] else -1)
        found[task] = ahead / max(mine["deviation"], theirs["deviation"], 1e-6)
    return {task: found[task] for task in tasks if task in found}


def is_plain(row: Mapping[str, Any]) -> bool:
    """Whether a row differs from the comparison's settings in size alone."""
    return row["data_every"] == 1 and set(row["settings"]) <= {"target_sparsity"}


def best_baseline(rows: Rows, tasks: Mapping[str, Any], sparsity: float) -> str | None:
    """The start whose student of a size has the best mean rank over tasks (over losses where there are no scores)."""
    rivals = [r for r in rows if r["start"] != METHOD and r["target_sparsity"] == sparsity and is_plain(r)]
    signs = {task: 1 if facts["higher_is_better"] else -1 for task, facts in tasks.items()}
    judged = [r for r in rivals if all(task in r["scores"] for task in signs)] if signs else []
    if not judged:
        with_loss = [r for r in rivals if r["loss"]]
        return min(with_loss, key=lambda r: r["loss"]["mean"])["start"] if with_loss else None

    def mean_rank(row: Mapping[str, Any]) -> float:
        return statistics.fmean(
            sum(sign * (r["scores"][task]["mean"] - row["scores"][task]["mean"]) > 0 for r in judged)
            for task, sign in signs.items()
        )

    return min(judged, key=mean_rank)["start"]


def cells(rows: Rows, references: Rows, tasks: Mapping[str, Any]) -> list[list[str]]:
    """All rows as text: a line of headings, references, students, and what chance gives."""
    arrows = {task: "↑" if facts["higher_is_better"] else "↓" for task, facts in tasks.items()}
    by_task = [f"{task}, {tasks[task]['metric']} (%) {arrows[task]}" for task in tasks]
    lines = [["", "parameters", "million MACs", "loss", *by_task]]
    for r in [*references, *rows]:
        size = f"{r['parameters']:,.0f}" if r["parameters"] else ""
        cost = f"{r['macs'] / 1e6:,.0f}" if "macs" in r else ""
        scores = (_shown(r["scores"].get(task), 100, 1) for task in tasks)
        lines.append([r["name"], size, cost, _shown(r.get("loss"), 1, 4), *scores])
    if tasks:
        lines.append(["chance", "", "", "", *(f"{100 * tasks[task]['chance']:.1f}" for task in tasks)])
    return lines


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A table for the terminal: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = ["<", *(">" for _ in widths[1:])]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True))
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same for a document."""
    heads, *rows = lines
    rule = ["---", *("--:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows)) + "\n"


def _shown(found: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    """Mean and, where there are several values, deviation."""
    if not found:
        return ""
    mean = f"{scale * found['mean']:.{digits}f}"
    return f"{mean} ± {scale * found['deviation']:.{digits}f}" if len(found["values"]) > 1 else mean
