"""An evaluation as a picture: each task's scores over seeds, and how much alike each layer is to the teacher's."""

from pathlib import Path
from typing import Any

from l0prune.files import write_atomic
from l0prune.scores import Evaluation

_COLUMNS = 2


def draw_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Draw a panel a task, and one for each measure of the layers.

    Args:
        evaluation: What to draw.
        path: A PNG file to write.
    """
    from matplotlib.figure import Figure

    measures = list(dict.fromkeys(name for layer in evaluation.layers for name in layer.measures))
    panels = len(evaluation.tasks) + len(measures)
    rows = -(-panels // _COLUMNS)
    figure = Figure(figsize=(5 * _COLUMNS, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    colours = {model: f"C{number}" for number, model in enumerate(evaluation.models)}
    for task in evaluation.tasks:
        _scores(next(axes), evaluation, task, colours)
    for measure in measures:
        _layers(next(axes), evaluation, measure, colours)
    for unused in axes:
        unused.set_visible(False)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def _scores(axes: Any, evaluation: Evaluation, task: str, colours: dict[str, str]) -> None:
    scores = [score for score in evaluation.scores if score.task == task]
    facts = evaluation.tasks[task]
    places = range(len(scores))
    axes.barh(
        places,
        [100 * score.mean for score in scores],
        xerr=[100 * score.deviation for score in scores],
        color=[colours[score.model] for score in scores],
        capsize=3,
    )
    axes.axvline(100 * facts["chance"], color="black", linestyle=":", linewidth=1, label="chance")
    axes.set_yticks(places, [score.model for score in scores], fontsize=8)
    axes.invert_yaxis()
    better = "higher" if facts["higher_is_better"] else "lower"
    axes.set_title(f"{task}: {facts['metric']} (%), {better} is better", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7)


def _layers(axes: Any, evaluation: Evaluation, measure: str, colours: dict[str, str]) -> None:
    for model in evaluation.models:
        own = [layer for layer in evaluation.layers if layer.model == model]
        values = [layer.measures[measure] for layer in own]
        if own and None not in values:
            axes.plot([layer.layer for layer in own], values, marker="o", color=colours[model], label=model)
    axes.set_title(f"{measure} with the layer of {evaluation.against}", fontsize=9)
    axes.set_xlabel("layer", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_lines():
        axes.legend(fontsize=7)
