"""The parts of a report's page that show one run."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from l0prune.plugin import UnitKind
from l0prune.report import figures
from l0prune.report.facts import RunFacts
from l0prune.report.figures import Curve, Drawing
from l0prune.report.markup import Markup, Section, table, tag
from l0prune.report.parts import Part, short_names
from l0prune.size import noun_of
from l0prune.support import plain, quantity, score, write_toml


def run_sections(run: RunFacts, prefix: str) -> list[Section]:
    """All that is known of a run; sections of which nothing is known are left out.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    sections = [
        Section(title="What is left", drawings=tuple(_architecture(run, prefix))),
        Section(title="Training", drawings=tuple(_training(run, prefix)), content=tuple(_averages(run))),
        *elastic_sections(run, prefix),
        *size_sections(run, prefix),
        *probe_sections(run, prefix),
        *latency_sections(run, prefix),
        Section(title="In numbers", content=(_numbers(run),)),
        Section(title="Repeat it" if run.complete else "Go on with it", content=tuple(_repeat(run))),
    ]
    return [section for section in sections if section.content or section.drawings]


def _architecture(run: RunFacts, prefix: str) -> Iterator[Drawing]:
    kinds = (run.report or {}).get("kinds", {})
    return figures.kept_figures(run.kept, {kind: UnitKind(**words) for kind, words in kinds.items()}, prefix)


def _training(run: RunFacts, prefix: str) -> Iterator[Drawing]:
    curves = run.curves
    wanted: list[tuple[str, str, Sequence[Curve]]] = [
        ("loss", "Training loss", curves.loss),
        ("loss-parts", "Training loss by part", curves.loss_parts),
        ("sparsity", "Expected sparsity and its target", curves.sparsity),
        ("parameters", "Parameters that are left", curves.parameters),
        *((f"multiplier-{i}", f"Multiplier {curve.name}", (curve,)) for i, curve in enumerate(curves.multipliers, 1)),
        ("step-seconds", "Seconds a step", curves.step_seconds),
    ]
    for name, title, lines in wanted:
        if lines:
            yield figures.curve_figure(f"{prefix}{name}", title, lines, cut_at=curves.cut_at)


def _averages(run: RunFacts) -> Iterator[Markup]:
    if run.curves.lines_a_point > 1:
        words = f"A point is the mean of up to {run.curves.lines_a_point} lines of metrics.jsonl."
        yield tag("p", words, class_="note")


def _numbers(run: RunFacts) -> Markup:
    return table(f"Measures of {run.name}", ["measure", "value"], [(m.name, m.text) for m in run.measures])


def _repeat(run: RunFacts) -> Iterator[Markup]:
    if run.repeat:
        yield tag("pre", tag("code", run.repeat), tabindex="0", aria_label="Command")
    else:
        yield tag("p", "The training loop of its own program made this run, and makes it again.")
    if str(run.settings.get("metric")).startswith("latency"):
        yield tag("p", "Times are measured anew then, so that the plan may differ.", class_="note")
    if run.versions:
        yield table("Versions", ["package", "version"], list(run.versions.items()))
    settings = tag("pre", tag("code", write_toml(run.settings)), tabindex="0", aria_label="Settings")
    yield tag("details", tag("summary", "Every setting (config.toml)"), settings)


def elastic_sections(run: RunFacts, prefix: str) -> Iterator[Section]:
    """The sizes that an elastic run was trained for, and its loss at some of them; nothing of another run.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    elastic = (run.report or {}).get("elastic")
    if not elastic:
        return
    curve, what = elastic["curve"], noun_of(elastic["metric"])
    headings = [f"{what} left", "parameters", "held-out loss"]
    body = [
        [f"{row['left']:.2%}", f"{row['parameters']:,}", plain(row["loss"]) if row["loss"] is not None else ""]
        for row in curve
    ]
    points = [(row["left"], row["loss"]) for row in curve if row["loss"] is not None]
    title = "Held-out loss at each size"
    drawings = (figures.elastic_figure(f"{prefix}loss-by-size", title, points, across=what),) if points else ()
    words = (
        f"Any size from {elastic['smallest']:.0%} to {elastic['largest']:.0%} of the {what} is cut out of this run. "
        "What is left here is the largest."
    )
    command = shlex.join(
        ["l0prune", "cut", run.path, "--target", f"{elastic['metric']}=50%", "--out", f"{run.path}-cut"]
    )
    cells = table("Some sizes, each proved", headings, body, kind="numbers")
    code = tag("pre", tag("code", command), tabindex="0", aria_label="Command")
    yield Section(title="Sizes", drawings=drawings, content=(tag("p", words), code, cells))


_MUST_STAY = "Must stay: what is left when every group keeps one unit, or none where a block can be bypassed."


def size_sections(run: RunFacts, prefix: str) -> Iterator[Section]:
    """Parameters and multiply-accumulates of each part; nothing before there is a plan.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    parts = run.parts
    if parts is None:
        return
    alike = parts.by_pattern()
    short = short_names([part.name for part in alike])
    alike = [replace(part, name=short[part.name]) for part in alike]
    params = [(part.name, part.params_before, part.params_after) for part in alike]
    drawings = [figures.size_figure(f"{prefix}parameters-by-part", "Parameters by part", params)]
    if any(part.macs_before for part in alike):
        macs = [(part.name, part.macs_before or 0, part.macs_after or 0) for part in alike]
        drawings.append(figures.size_figure(f"{prefix}macs-by-part", f"MACs by part, per {parts.macs_per}", macs))
    total = sum(part.params_before for part in alike)
    notes = [_MUST_STAY, *([parts.note] if parts.note else [])]
    if run.report and not parts.note and run.report["params_before"] != total:
        notes.append(
            f"Before any pruning: this run began with a network of {run.report['params_before']:,} parameters."
        )
    each = tag("details", tag("summary", "Every part by itself"), _part_table("Every part", parts.rows))
    yield Section(
        title="Size by part",
        drawings=tuple(drawings),
        content=(_part_table("Parts, alike ones together", alike), *(tag("p", n, class_="note") for n in notes), each),
    )


def _part_table(caption: str, parts: Sequence[Part]) -> Markup:
    headings = ["module", "parameters before", "parameters after", "parameters left", "must stay"]
    counted = any(part.macs_before is not None for part in parts)
    if counted:
        headings += ["MACs before", "MACs after", "MACs left"]
    whole = Part(
        name="all",
        params_before=sum(part.params_before for part in parts),
        params_after=sum(part.params_after for part in parts),
        params_least=sum(part.params_least for part in parts),
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
            f"{part.params_least:,}",
        ]
        if counted:
            before, after = part.macs_before or 0, part.macs_after or 0
            cells += [quantity(before), quantity(after), _share(after, before)] if before else [""] * 3
        rows.append(cells)
    return table(caption, headings, rows, kind="numbers")


def _share(after: int, before: int) -> str:
    return f"{after / before:.1%}" if before else ""


def probe_sections(run: RunFacts, prefix: str) -> Iterator[Section]:
    """Probe results, a column a task, and layers beside the teacher's; nothing where there are neither.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    rows = run.probes
    drawings = tuple(figures.evaluation_figures(rows, run.layers, prefix))
    if not rows:
        if drawings:
            yield Section(title="Probes", content=(), drawings=drawings)
        return
    tasks = list(dict.fromkeys((row["task"], row["metric"]) for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(row["model"], row["task"], row["metric"]): score(row["mean"], row.get("deviation")) for row in rows}
    headings = ["model", *(f"{task}, {metric}" for task, metric in tasks)]
    body = [[model, *(cells.get((model, *task), "") for task in tasks)] for model in models]
    caption = "Probe results: mean and standard deviation"
    yield Section(title="Probes", content=(table(caption, headings, body, kind="numbers"),), drawings=drawings)


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
    content = (table(where, headings, body, kind="numbers"),)
    yield Section(title="Latency", content=content, drawings=tuple(figures.bench_figures(bench, prefix)))


def _ratio(ratio: Mapping[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
