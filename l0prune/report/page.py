"""A report's page: one HTML file that asks for nothing else."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from string import Template

from l0prune.report.comparison import comparison
from l0prune.report.facts import RunFacts
from l0prune.report.figures import Drawing
from l0prune.report.markup import Markup, Section, joined, tag
from l0prune.report.sections import run_sections
from l0prune.support import quantity


def make_page(runs: Sequence[RunFacts]) -> tuple[str, list[Drawing]]:
    """The page as HTML, and its figures.

    Args:
        runs: One, or several to stand side by side.
    """
    if len(runs) == 1:
        sections = run_sections(runs[0], "")
        body = [*_opening(runs[0]), *(_section(section, "h2") for section in sections)]
    else:
        sections = [comparison(runs)]
        links = [tag("li", tag("a", run.name, href=f"#run-{number}")) for number, run in enumerate(runs, start=1)]
        body = [tag("nav", tag("ul", *links), aria_label="Runs"), _section(sections[0], "h2")]
        for number, run in enumerate(runs, start=1):
            own = run_sections(run, f"{number}-")
            inner = [*_opening(run), *(_section(section, "h3") for section in own)]
            body.append(tag("article", tag("h2", run.name), *inner, id=f"run-{number}"))
            sections += own
    return _filled(runs, body), [drawing for section in sections for drawing in section.drawings]


def _filled(runs: Sequence[RunFacts], body: Sequence[Markup]) -> str:
    here = files("l0prune.report")
    template = Template((here / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        style=(here / "style.css").read_text(encoding="utf-8"),
        title=joined([runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side"]),
        body=joined(body),
    )


def _section(section: Section, heading: str) -> Markup:
    shown = [
        # A figure's own words stand in the svg element, for those who hear the page.
        tag("figure", tag("figcaption", drawing.title), Markup(drawing.svg))
        for drawing in section.drawings
    ]
    grid = [tag("div", *shown, class_="figures")] if shown else []
    return tag("section", tag(heading, section.title), *grid, *section.content)


def _opening(run: RunFacts) -> Iterator[Markup]:
    """What a reader wants to know first."""
    facts = [run.teacher, f"recipe {run.recipe}" if run.recipe else "", run.path]
    yield tag("p", " · ".join(fact for fact in facts if fact), class_="lead")
    if not run.complete:
        words = f"This run is not finished: {run.progress}. What follows is what there is so far."
        yield tag("p", words, class_="warning", role="status")
    cards = list(_cards(run))
    if cards:
        yield tag("dl", *cards, class_="cards")


def _cards(run: RunFacts) -> Iterator[Markup]:
    report = run.report
    if report is None:
        return
    before, after = report["params_before"], report["params_after"]
    yield _card("Parameters", quantity(after), f"{after / before:.1%} of {quantity(before)}")
    before, after = report["macs_before"], report["macs_after"]
    if before is not None and after is not None:
        yield _card("MACs", quantity(after), f"{before / max(1, after):.2f} times fewer, per {report['macs_per']}")
    loss, cut = report.get("distill_loss_final"), report.get("distill_loss_after_removal")
    if loss is not None:
        yield _card(
            "Held-out loss at the end", f"{loss:.4f}", f"{cut:.4f} right after the cut" if cut is not None else ""
        )
    if report.get("speedup"):
        words = f"{report['latency_after_ms']:.1f} ms for {report['latency_before_ms']:.1f} ms"
        yield _card("Times faster", f"{report['speedup']:.2f}", words)
    elif report.get("max_relative_difference") is not None:
        yield _card("Changed by the cut", f"{report['max_relative_difference']:.1e}", "largest relative difference")


def _card(name: str, value: str, words: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, class_="value"), tag("dd", words))
