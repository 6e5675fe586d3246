"""The parts of a report's page that show what was measured after a run: probes and latency."""

from collections.abc import Iterator, Mapping
from typing import Any

from l0prune.report.facts import RunFacts
from l0prune.report.figures import panels as figures
from l0prune.report.figures.drawing import Drawing
from l0prune.report.markup import table
from l0prune.report.section import Section
from l0prune.support.text import counted, score, shortest_endings


def probe_sections(run: RunFacts, prefix: str) -> Iterator[Section]:
    """Probe results, a column a task, and layers beside the teacher's; nothing where there are neither.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    rows, short = run.probes, _short_names(run)
    layers = tuple(_layers(run, prefix, short))
    if not rows:
        if layers:
            yield Section(title="Probes", content=(), drawings=layers)
        return
    tasks = list(dict.fromkeys((row["task"], row["metric"]) for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(row["model"], row["task"], row["metric"]): score(row["mean"], row.get("deviation")) for row in rows}
    headings = ["model", *(f"{task}, {metric}" for task, metric in tasks)]
    body = [[model, *(cells.get((model, *task), "") for task in tasks)] for model in models]
    drawings = []
    for number, (task, metric) in enumerate(tasks, start=1):
        points = [
            (short[row["model"]], row["mean"], row.get("deviation"))
            for row in rows
            if (row["task"], row["metric"]) == (task, metric)
        ]
        drawings.append(figures.score_figure(f"{prefix}probe-{number}", f"{task}, {metric}", points))
    caption = "Probe results: mean and standard deviation"
    content = (table(caption, headings, body, kind="numbers"),)
    yield Section(title="Probes", content=content, drawings=(*drawings, *layers))


def _short_names(run: RunFacts) -> dict[str, str]:
    """What figures call the models that were evaluated."""
    return shortest_endings([*dict.fromkeys(row["model"] for row in (*run.probes, *run.layers))])


def _layers(run: RunFacts, prefix: str, short: Mapping[str, str]) -> Iterator[Drawing]:
    """How much alike each layer is to the teacher's, a figure a measure."""
    measures = dict.fromkeys(name for row in run.layers for name in row["measures"])
    for number, measure in enumerate(measures, start=1):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in run.layers:
            if row["measures"].get(measure) is not None:
                lines.setdefault(short[row["model"]], []).append((row["layer"], row["measures"][measure]))
        if lines:
            yield figures.layer_figure(f"{prefix}layers-{number}", f"Layers beside the teacher's: {measure}", lines)


def latency_sections(run: RunFacts, prefix: str) -> Iterator[Section]:
    """What a benchmark measured; nothing where there is none.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    bench = run.bench
    if not bench or not bench["rows"]:
        return
    rows = bench["rows"]
    headings = ["model", "load", "dtype", "backend", "batch", "threads", "latency", "95 %", "times faster"]
    body = [
        [
            *(str(row.get(key, "")) for key in ("model", "load", "dtype", "backend", "batch", "threads")),
            f"{row['latency_ms']:.2f} ms",
            f"{row['latency_p95_ms']:.2f} ms" if row.get("latency_p95_ms") else "",
            _ratio(row.get("speedup")),
        ]
        for row in rows
    ]
    where = f"Latency on {bench.get('processor') or bench.get('device', 'an unnamed device')}"
    short = shortest_endings([*dict.fromkeys(row["model"] for row in rows)])
    last = [(_variant(row, short), row["latency_ms"], None) for row in rows if _load(row) == _load(rows[-1])]
    title = f"Latency in ms, {_load(rows[-1])}"
    drawing = figures.score_figure(f"{prefix}latency", title, last, from_zero=True)
    yield Section(title="Latency", content=(table(where, headings, body, kind="numbers"),), drawings=(drawing,))


def _load(row: Mapping[str, Any]) -> str:
    """What rows must have in common to stand in one figure."""
    batch, threads = row.get("batch"), row.get("threads")
    words = [row["load"], f"batch {batch}" if batch else "", counted(threads, "thread") if threads else ""]
    return ", ".join(filter(None, words))


def _variant(row: Mapping[str, Any], short: Mapping[str, str]) -> str:
    words = [short[row["model"]], row["dtype"], *([row["backend"]] if row["backend"] != "eager" else [])]
    return ", ".join(words)


def _ratio(ratio: Mapping[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
