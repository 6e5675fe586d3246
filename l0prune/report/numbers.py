"""The numbers of a run that runs are compared by: sizes, times, losses and scores, by name."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from l0prune.report.measures import own_names, own_scores
from l0prune.report.read import Run


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number of a run."""

    value: float
    """Finite."""
    counts: str
    """What is counted, for an axis."""
    more_is_better: bool | None = False
    """None where nothing says."""
    deviation: float | None = None
    """Where it is a mean."""
    basis: Mapping[str, str] = field(default_factory=dict)
    """What it was measured on, by name: numbers on another basis do not compare."""


def numbers(run: Run) -> dict[str, Number]:
    """All numbers of a run by name.

    Args:
        run: Finished or not.
    """
    found: dict[str, Number] = {}
    bench = dict(_benchmark(run))
    pairs = [*_sizes(run), *_losses(run), *_scores(run), *bench.items()]
    # A benchmark's first variant is the latency; the one at the cut has another name, too.
    latency = next((number for name, number in bench.items() if name.startswith("latency:")), None)
    for name, number in [*([("latency", latency)] if latency else []), *pairs, *_targets(run)]:
        if math.isfinite(number.value):
            found.setdefault(name, number)
    return found


def _sizes(run: Run) -> Iterator[tuple[str, Number]]:
    report = run.report
    if report is None:
        return
    yield "params", Number(value=report["params_after"], counts="parameters")
    if report["macs_after"] is not None:
        counts = f"MACs per {report['macs_per']}"
        yield "macs", Number(value=report["macs_after"], counts=counts, basis={"macs_per": report["macs_per"]})
    basis = {"measured": "at the cut", "device": str(report.get("device", ""))}
    if report.get("latency_after_ms") is not None:
        at_cut = Number(value=report["latency_after_ms"], counts="ms at the cut", basis=basis)
        yield "latency-at-cut", at_cut
        yield "latency", at_cut
    if report.get("speedup"):
        yield "speedup", Number(value=report["speedup"], counts="times faster", more_is_better=True, basis=basis)
    if report.get("stage_seconds"):
        basis = {"device": str(report.get("device", ""))}
        seconds = sum(report["stage_seconds"].values())
        yield "training-seconds", Number(value=seconds, counts="seconds of training", basis=basis)


def _losses(run: Run) -> Iterator[tuple[str, Number]]:
    report = run.report
    if report is None:
        return
    plugin = str(run.settings.get("plugin", ""))
    basis = {"teacher": report["teacher"], "plugin": plugin}
    options = run.settings.get(plugin, {})
    if isinstance(options, Mapping):
        # Which of them bear on the loss the plugin knows alone.
        basis |= {f"{plugin}.{key}": _text(value) for key, value in options.items()}
    basis["loss parts"] = ", ".join(report.get("losses_final", {}))
    if report.get("distill_loss_final") is not None:
        yield "loss", Number(value=report["distill_loss_final"], counts="loss at the end", basis=basis)
    for part, loss in report.get("losses_final", {}).items():
        yield f"loss:{part}", Number(value=loss, counts=f"{part} at the end", basis=basis)


def _scores(run: Run) -> Iterator[tuple[str, Number]]:
    """By the task's name; a further metric of a task by both names."""
    for row in own_scores(run):
        number = Number(
            value=row["mean"],
            counts=f"{row['task']}, {row['metric']}",
            more_is_better=row.get("higher_is_better"),
            deviation=row.get("deviation"),
            basis={"metric": row["metric"], "data": row.get("data") or ""},
        )
        yield row["task"], number
        yield f"{row['task']}:{row['metric']}", number


_FACTS = {"file_bytes": "bytes on disk", "peak_memory_bytes": "bytes of peak memory", "load_seconds": "seconds to load"}


def _benchmark(run: Run) -> Iterator[tuple[str, Number]]:
    """The run's own times in bench.json: each variant by its name, which is as long as it takes."""
    bench = run.bench
    if not bench:
        return
    models = [*bench["models"]] or [*dict.fromkeys(row["model"] for row in bench["rows"])]
    own = {*models} if len(models) == 1 else own_names(run, models)
    where = str(bench.get("processor") or bench.get("device") or "an unnamed device")
    rows = [row for row in bench["rows"] if row["model"] in own]
    several = [key for key in ("batch", "threads") if len({row.get(key) for row in rows}) > 1]
    for row in rows:
        variant = [row["load"], row["dtype"], row["backend"], *(f"{key} {row.get(key)}" for key in several)]
        settings = {key: str(row.get(key, "")) for key in ("load", "dtype", "backend", "batch", "threads")}
        counts = f"ms, {', '.join(variant)}"
        basis = {"measured": "bench.json", "processor": where, **settings}
        yield f"latency:{','.join(variant)}", Number(value=row["latency_ms"], counts=counts, basis=basis)
    for model in own:
        for key, words in _FACTS.items():
            value = bench["models"].get(model, {}).get(key)
            if _is_number(value):
                yield key, Number(value=value, counts=words)


def _targets(run: Run) -> Iterator[tuple[str, Number]]:
    """What targets of other metrics count, and what these have measured."""
    report = run.report or {}
    for row in report.get("targets", []):
        yield row["metric"], Number(value=row["size"] / (row["unit"] or 1), counts=row["counts"])
    facts = report.get("metric_facts")
    for name, value in facts.items() if isinstance(facts, Mapping) else ():
        if _is_number(value):
            yield name, Number(value=value, counts=name.replace("_", " "))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
