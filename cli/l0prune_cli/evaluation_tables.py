"""An evaluation as tables: a row a model, and a row a layer."""

from rich.table import Table

from l0prune import Evaluation, Score, counted


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """Scores of all models, with chance as the last row, then the layers beside the teacher's."""
    tables = [_scores(evaluation)]
    return [*tables, _layers(evaluation)] if evaluation.layers else tables


def _scores(evaluation: Evaluation) -> Table:
    seeds = len(evaluation.seeds)
    title = "Probes on frozen hidden states, "
    title += counted(seeds, "seed") + (": mean ± deviation" if seeds > 1 else "")
    if evaluation.shuffled_labels:
        title += "; labels SHUFFLED"
    table = Table("model", title=title, title_justify="left")
    table.add_column("parameters", justify="right")
    for name, facts in evaluation.tasks.items():
        arrow = "↑" if facts["higher_is_better"] else "↓"
        table.add_column(f"{name}, {facts['metric']} {arrow}", justify="right")
    found = {(score.model, score.task): score for score in evaluation.scores}
    for model, facts in evaluation.models.items():
        size = f"{facts['parameters']:,}" if facts["parameters"] else ""
        table.add_row(model, size, *(_score(found[model, task]) for task in evaluation.tasks))
    table.add_row("chance", "", *(f"{100 * facts['chance']:.1f} %" for facts in evaluation.tasks.values()))
    return table


def _score(score: Score) -> str:
    spread = "" if score.deviation is None else f" ± {100 * score.deviation:.1f}"
    return f"{100 * score.mean:.1f}{spread} %"


def _layers(evaluation: Evaluation) -> Table:
    title = f"Layers beside those of {evaluation.against}"
    table = Table("model", title=title, title_justify="left")
    measures = list(dict.fromkeys(name for layer in evaluation.layers for name in layer.measures))
    for heading in ("layer", "teacher's", *measures):
        table.add_column(heading, justify="right")
    for layer in evaluation.layers:
        values = (layer.measures[name] for name in measures)
        shown = ("" if value is None else f"{value:.3f}" for value in values)
        table.add_row(layer.model, str(layer.layer), str(layer.teacher_layer), *shown)
    return table
