"""An evaluation as a picture: each task's scores over seeds, and how much alike each layer is to the teacher's."""

from math import nan
from pathlib import Path
from typing import Any

from l0prune.plugin import Evaluation
from l0prune.report.figures.style import legend_below, picture
from l0prune.support import figure_names, write_atomic

_COLUMNS = 2
_LEAST_ROWS = 3
_DASHES = ("-", "--", ":", "-.")
_COLOURS = 10
"""Of matplotlib, before they begin anew; then the line differs."""


def draw_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Draw a panel a task, and one for each measure of the layers.

    Args:
        evaluation: What to draw.
        path: A PNG file to write.
    """
    write_atomic(path, lambda temporary: _draw(evaluation, temporary))


def _draw(evaluation: Evaluation, path: Path) -> None:
    measures = list(dict.fromkeys(name for layer in evaluation.layers for name in layer.measures))
    rows = -(-(len(evaluation.tasks) + len(measures)) // _COLUMNS)
    against = [evaluation.against] if evaluation.against else []
    models = list(dict.fromkeys([*evaluation.models, *against]))
    names = figure_names(models)
    # Bars and lines of the legend need their room whatever the number of models.
    height = rows * max(3.2, 1.2 + 0.25 * len(models)) + 0.3 + 0.16 * len(models) / _COLUMNS
    with picture(path, 5 * _COLUMNS, height) as figure:
        panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
        axes = iter(panels)
        for task in evaluation.tasks:
            _scores(next(axes), evaluation, task, names)
        for measure in measures:
            _layers(next(axes), evaluation, measure, names)
        for unused in axes:
            unused.set_visible(False)
        legend_below(figure, panels, columns=3, letters=150)


def _look(model: str, names: dict[str, str]) -> dict[str, Any]:
    number = list(names).index(model)
    return {"color": f"C{number % _COLOURS}", "linestyle": _DASHES[number // _COLOURS % len(_DASHES)]}


def _scores(axes: Any, evaluation: Evaluation, task: str, names: dict[str, str]) -> None:
    scores = [score for score in evaluation.scores if score.task == task]
    facts = evaluation.tasks[task]
    places = range(len(scores))
    axes.barh(
        places,
        [100 * score.mean for score in scores],
        # A single seed has no deviation, and gets no bar.
        xerr=[nan if score.deviation is None else 100 * score.deviation for score in scores],
        color=[_look(score.model, names)["color"] for score in scores],
        capsize=3,
    )
    axes.axvline(100 * facts["chance"], color="black", linestyle=":", linewidth=1, label="chance")
    axes.set_yticks(places, [names[score.model] for score in scores], fontsize=8)
    # From above; a single bar would be as high as the panel.
    axes.set_ylim(max(len(scores), _LEAST_ROWS) - 0.5, -0.5)
    better = "higher" if facts["higher_is_better"] else "lower"
    axes.set_title(f"{task}: {facts['metric']} (%), {better} is better", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _layers(axes: Any, evaluation: Evaluation, measure: str, names: dict[str, str]) -> None:
    for model in evaluation.models:
        own = [layer for layer in evaluation.layers if layer.model == model]
        values = [layer.measures[measure] for layer in own]
        if own and None not in values:
            axes.plot([layer.layer for layer in own], values, marker="o", label=names[model], **_look(model, names))
    beside = f" with the layer of {names[evaluation.against]}" if evaluation.against else ""
    axes.set_title(f"{measure}{beside}", fontsize=9)
    axes.set_xlabel("layer", fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
