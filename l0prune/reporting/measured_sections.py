"""The parts of a report's page that show what was measured after a run: probes and latency."""

from collections.abc import Iterator, Mapping
from typing import Any

from l0prune.labels import shortest_endings
from l0prune.reporting import figures
from l0prune.reporting.drawing import Drawing
from l0prune.reporting.facts import RunFacts
from l0prune.reporting.markup import table
from l0prune.reporting.section import Section
from l0prune.wording import score


def probe_sections(run: RunFacts, prefix: str) -> Iterator[Section]:
    """Probe results, a column a task; nothing where there are none.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    rows = run.probes
    if not rows:
        return
    tasks = list(dict.fromkeys((row["task"], row["metric"]) for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(row["model"], row["task"], row["metric"]): score(row["mean"], row.get("deviation")) for row in rows}
    headings = ["model", *(f"{task}, {metric}" for task, metric in tasks)]
    body = [[model, *(cells.get((model, *task), "") for task in tasks)] for model in models]
    short = _short_names(run)
    drawings = []
    for number, (task, metric) in enumerate(tasks, start=1):
        points = [
            (short[row["model"]], row["mean"], row.get("deviation"))
            for row in rows
            if (row["task"], row["metric"]) == (task, metric)
        ]
        drawings.append(figures.score_figure(f"{prefix}probe-{number}", f"{task}, {metric}", points))
    drawings += _layers(run, prefix, short)
    caption = "Probe results: mean and standard deviation"
    yield Section(title="Probes", content=(table(caption, headings, body, kind="numbers"),), drawings=tuple(drawings))


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
    load = rows[-1]["load"]
    short = shortest_endings([*dict.fromkeys(row["model"] for row in rows)])
    last = [(_variant(row, short), row["latency_ms"], None) for row in rows if row["load"] == load]
    drawing = figures.score_figure(f"{prefix}latency", f"Latency in ms, {load}", last, from_zero=True)
    yield Section(title="Latency", content=(table(where, headings, body, kind="numbers"),), drawings=(drawing,))


def _variant(row: Mapping[str, Any], short: Mapping[str, str]) -> str:
    words = [short[row["model"]], row["dtype"], *([row["backend"]] if row["backend"] != "eager" else [])]
    return ", ".join(words)


def _ratio(ratio: Mapping[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
