"""Pictures of runs. Each has one painter, for a page and for PNG files."""

from l0prune.report.figures.bench import bench_figures, draw_measurement
from l0prune.report.figures.evaluation import draw_evaluation, evaluation_figures, score_rows
from l0prune.report.figures.kept import KeptUnits, draw_kept_units, kept_figures, kept_units
from l0prune.report.figures.panels import Curve, curve_figure, elastic_figure, scatter_figure, size_figure
from l0prune.report.figures.pareto import ParetoPoint, pareto_figure
from l0prune.report.figures.style import MARK, Drawing, legend_below

__all__ = [
    "MARK",
    "Curve",
    "Drawing",
    "KeptUnits",
    "ParetoPoint",
    "bench_figures",
    "curve_figure",
    "draw_evaluation",
    "draw_kept_units",
    "draw_measurement",
    "elastic_figure",
    "evaluation_figures",
    "kept_figures",
    "kept_units",
    "legend_below",
    "pareto_figure",
    "scatter_figure",
    "score_rows",
    "size_figure",
]
