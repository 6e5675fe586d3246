"""What a report's page is made of."""

from dataclasses import dataclass

from l0prune.report.figures.drawing import Drawing
from l0prune.report.markup import Markup


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what stands below it, and the figures among that."""

    title: str
    content: tuple[Markup, ...] = ()
    drawings: tuple[Drawing, ...] = ()
