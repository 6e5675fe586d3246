"""Pictures of runs: PNG files, and drawings inside the page."""

from l0prune.report.figures.bench import draw_measurement
from l0prune.report.figures.evaluation import draw_evaluation
from l0prune.report.figures.kept import KeptUnits, draw_kept_units, kept_figure
from l0prune.report.figures.panels import Curve, curve_figure, layer_figure, scatter_figure, score_figure, size_figure
from l0prune.report.figures.style import MARK, Drawing, legend_below

__all__ = [
    "MARK",
    "Curve",
    "Drawing",
    "KeptUnits",
    "curve_figure",
    "draw_evaluation",
    "draw_kept_units",
    "draw_measurement",
    "kept_figure",
    "layer_figure",
    "legend_below",
    "scatter_figure",
    "score_figure",
    "size_figure",
]
