"""An evaluation as pictures: each task's scores, and how much alike each layer is to the teacher's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from l0prune.plugin import Evaluation
from l0prune.report.figures.panels import layer_figure, score_figure
from l0prune.report.figures.style import Drawing, write_sheet
from l0prune.support import shortest_endings

_BETTER = {True: ", higher is better", False: ", lower is better", None: ""}


def evaluation_figures(
    scores: Sequence[Mapping[str, Any]], layers: Sequence[Mapping[str, Any]], prefix: str = ""
) -> Iterator[Drawing]:
    """A figure for each task, and one for each measure of the layers.

    Args:
        scores: Rows of model, task, metric and mean; deviation, higher_is_better and chance where they are known.
        layers: Rows of model, layer and measures.
        prefix: Makes the names of the figures unique on a page.
    """
    short = shortest_endings([*dict.fromkeys(row["model"] for row in (*scores, *layers))])
    tasks = dict.fromkeys((row["task"], row["metric"]) for row in scores)
    for number, (task, metric) in enumerate(tasks, start=1):
        own = [row for row in scores if (row["task"], row["metric"]) == (task, metric)]
        points = [(short[row["model"]], row["mean"], row.get("deviation")) for row in own]
        title = f"{task}, {metric}{_BETTER[own[0].get('higher_is_better')]}"
        yield score_figure(f"{prefix}probe-{number}", title, points, chance=own[0].get("chance"))
    measures = dict.fromkeys(name for row in layers for name in row["measures"])
    for number, measure in enumerate(measures, start=1):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in layers:
            if row["measures"].get(measure) is not None:
                lines.setdefault(short[row["model"]], []).append((row["layer"], row["measures"][measure]))
        if lines:
            yield layer_figure(f"{prefix}layers-{number}", f"Layers beside the teacher's: {measure}", lines)


def score_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each score of an evaluation's JSON object with what is known of its task.

    Args:
        evaluation: At least `scores`, rows of model, task and mean.
    """
    # Numbers of shuffled labels must not pass for others.
    shuffled = ", labels shuffled" if evaluation.get("shuffled_labels") else ""
    rows = []
    for score in evaluation["scores"]:
        task = evaluation.get("tasks", {}).get(score["task"], {})
        row = {key: score.get(key) for key in ("model", "task", "mean", "deviation")}
        row |= {"metric": f"{task.get('metric', '')}{shuffled}"}
        rows.append(row | {key: task[key] for key in ("higher_is_better", "chance", "data") if key in task})
    return rows


def draw_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Draw a panel for each task, and one for each measure of the layers.

    Args:
        evaluation: What to draw.
        path: A PNG file to write.
    """
    content = evaluation.to_json()
    write_sheet(path, [*evaluation_figures(score_rows(content), content["layers"])], columns=2)
