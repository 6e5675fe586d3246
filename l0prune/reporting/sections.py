"""The parts of a report's page that show one run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l0prune.config import write_toml
from l0prune.reporting import figures
from l0prune.reporting.curves import Curve
from l0prune.reporting.drawing import Drawing
from l0prune.reporting.facts import RunFacts
from l0prune.reporting.markup import Markup, table, tag
from l0prune.reporting.parts import Part, Parts, short_names
from l0prune.wording import quantity, score


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what stands below it, and the figures among that."""

    title: str
    content: tuple[Markup, ...] = ()
    drawings: tuple[Drawing, ...] = ()


def run_sections(run: RunFacts, prefix: str) -> list[Section]:
    """All that is known of a run; sections of which nothing is known are left out.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    sections = [
        Section(title="What is left", drawings=tuple(_architecture(run, prefix))),
        Section(title="Training", drawings=tuple(_training(run, prefix))),
        *_size(run.parts, prefix),
        *_probes(run.probes, prefix),
        *_latency(run.bench, prefix),
        Section(title="In numbers", content=(_numbers(run),)),
        Section(title="Repeat it" if run.complete else "Go on with it", content=tuple(_repeat(run))),
    ]
    return [section for section in sections if section.content or section.drawings]


def _architecture(run: RunFacts, prefix: str) -> Iterator[Drawing]:
    for number, kind in enumerate(dict.fromkeys(unit.kind for unit in run.kept), start=1):
        groups = [unit for unit in run.kept if unit.kind == kind]
        yield figures.kept_figure(f"{prefix}kept-{number}", kind, groups)


def _training(run: RunFacts, prefix: str) -> Iterator[Drawing]:
    curves = run.curves
    wanted: list[tuple[str, str, Sequence[Curve]]] = [
        ("loss", "Loss", curves.loss),
        ("loss-parts", "Loss by part", curves.loss_parts),
        ("sparsity", "Expected sparsity and its target", curves.sparsity),
        ("parameters", "Parameters that are left", curves.parameters),
        *((f"multiplier-{i}", f"Multiplier {curve.name}", (curve,)) for i, curve in enumerate(curves.multipliers, 1)),
        ("step-seconds", "Seconds a step", curves.step_seconds),
    ]
    for name, title, lines in wanted:
        if lines:
            yield figures.curve_figure(f"{prefix}{name}", title, lines, cut_at=curves.cut_at)


def _size(parts: Parts | None, prefix: str) -> Iterator[Section]:
    if parts is None:
        return
    alike = parts.by_pattern()
    short = short_names([part.name for part in alike])
    params = [(short[part.name], part.params_before, part.params_after) for part in alike]
    drawings = [figures.size_figure(f"{prefix}parameters-by-part", "Parameters by part", params)]
    if any(part.macs_before for part in alike):
        macs = [(short[part.name], part.macs_before or 0, part.macs_after or 0) for part in alike]
        drawings.append(figures.size_figure(f"{prefix}macs-by-part", "Multiply-accumulates by part", macs))
    each = tag("details", tag("summary", "Every part by itself"), _part_table("Every part", parts.rows))
    note = [tag("p", parts.note, class_="note")] if parts.note else []
    yield Section(
        title="Size by part",
        drawings=tuple(drawings),
        content=(_part_table("Parts, alike ones together. MACs: per second of a 10 s input", alike), *note, each),
    )


def _part_table(caption: str, parts: Sequence[Part]) -> Markup:
    headings = ["module", "parameters before", "after", "left"]
    counted = any(part.macs_before is not None for part in parts)
    if counted:
        headings += ["MACs before", "after", "left"]
    whole = Part(
        name="all",
        params_before=sum(part.params_before for part in parts),
        params_after=sum(part.params_after for part in parts),
        macs_before=sum(part.macs_before or 0 for part in parts),
        macs_after=sum(part.macs_after or 0 for part in parts),
    )
    rows = []
    for part in [*parts, whole]:
        name = f"{part.name} ({part.count})" if part.count > 1 else part.name
        cells = [
            name,
            f"{part.params_before:,}",
            f"{part.params_after:,}",
            _share(part.params_after, part.params_before),
        ]
        if counted:
            before, after = part.macs_before or 0, part.macs_after or 0
            cells += [quantity(before), quantity(after), _share(after, before)] if before else [""] * 3
        rows.append(cells)
    return table(caption, headings, rows, kind="numbers")


def _share(after: int, before: int) -> str:
    return f"{after / before:.1%}" if before else ""


def _probes(rows: Sequence[Mapping[str, Any]], prefix: str) -> Iterator[Section]:
    if not rows:
        return
    tasks = list(dict.fromkeys((row["task"], row["metric"]) for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(row["model"], row["task"], row["metric"]): score(row["mean"], row.get("deviation")) for row in rows}
    headings = ["model", *(f"{task}, {metric}" for task, metric in tasks)]
    body = [[model, *(cells.get((model, *task), "") for task in tasks)] for model in models]
    drawings = []
    for number, (task, metric) in enumerate(tasks, start=1):
        points = [
            (_last_name(row["model"]), row["mean"], row.get("deviation"))
            for row in rows
            if (row["task"], row["metric"]) == (task, metric)
        ]
        drawings.append(figures.score_figure(f"{prefix}probe-{number}", f"{task}, {metric}", points))
    caption = "Probe results: mean and standard deviation"
    yield Section(title="Probes", content=(table(caption, headings, body, kind="numbers"),), drawings=tuple(drawings))


def _latency(bench: Mapping[str, Any] | None, prefix: str) -> Iterator[Section]:
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
    last = [(_variant(row), row["latency_ms"], None) for row in rows if row["load"] == load]
    drawing = figures.score_figure(f"{prefix}latency", f"Latency in ms, {load}", last, from_zero=True)
    yield Section(title="Latency", content=(table(where, headings, body, kind="numbers"),), drawings=(drawing,))


def _variant(row: Mapping[str, Any]) -> str:
    return ", ".join([_last_name(row["model"]), row["dtype"], *([row["backend"]] if row["backend"] != "eager" else [])])


def _last_name(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]


def _ratio(ratio: object) -> str:
    if not isinstance(ratio, Mapping) or not {"median", "low", "high"} <= ratio.keys():
        return ""
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _numbers(run: RunFacts) -> Markup:
    return table(f"Measures of {run.name}", ["measure", "value"], [(m.name, m.text) for m in run.measures])


def _repeat(run: RunFacts) -> Iterator[Markup]:
    yield tag("pre", tag("code", run.repeat), tabindex="0", aria_label="Command")
    if run.settings.get("metric") == "latency":
        yield tag("p", "Times are measured anew then, so that the plan may differ.", class_="note")
    if run.versions:
        yield table("Versions", ["package", "version"], list(run.versions.items()))
    settings = tag("pre", tag("code", write_toml(run.settings)), tabindex="0", aria_label="Settings")
    yield tag("details", tag("summary", "Every setting (config.toml)"), settings)
