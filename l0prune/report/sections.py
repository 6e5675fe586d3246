"""The parts of a report's page that show one run."""

from collections.abc import Iterator, Sequence

from l0prune.report.curves import Curve
from l0prune.report.facts import RunFacts
from l0prune.report.figures import panels as figures
from l0prune.report.figures.drawing import Drawing
from l0prune.report.markup import Markup, table, tag
from l0prune.report.measured_sections import latency_sections, probe_sections
from l0prune.report.section import Section
from l0prune.report.size_section import size_sections
from l0prune.support.tables import write_toml


def run_sections(run: RunFacts, prefix: str) -> list[Section]:
    """All that is known of a run; sections of which nothing is known are left out.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    sections = [
        Section(title="What is left", drawings=tuple(_architecture(run, prefix))),
        Section(title="Training", drawings=tuple(_training(run, prefix)), content=tuple(_averages(run))),
        *size_sections(run, prefix),
        *probe_sections(run, prefix),
        *latency_sections(run, prefix),
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


def _averages(run: RunFacts) -> Iterator[Markup]:
    if run.curves.lines_a_point > 1:
        words = f"A point is the mean of up to {run.curves.lines_a_point} lines of metrics.jsonl."
        yield tag("p", words, class_="note")


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
