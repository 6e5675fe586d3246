"""What models are good for, through the plugin that knows tasks for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from l0prune.errors import ConfigError, nearest
from l0prune.plugin import Evaluation, EvaluationSettings, Evaluator, get_plugin
from l0prune.storage import read_report
from l0prune.support import known_arguments, say
from l0prune.workflows.opening import check_scored


@known_arguments
def evaluate(
    models: Sequence[str | Path],
    *,
    plugin: str,
    settings: EvaluationSettings | None = None,
    note: Callable[[str], None] = say,
) -> Evaluation:
    """Score models on tasks.

    Args:
        models: Run directories, what the plugin takes as teachers, and its yardsticks.
        plugin: The name of the plugin that reads them.
        settings: Tasks, data, seeds, and the model that layers are compared with: by default the teacher of the first
            run directory, which then is scored too.
        note: Told how far it is; the logger `l0prune` by default.

    Raises:
        L0PruneError: A model or the data cannot be used, or there is no such task.
    """
    settings = settings or EvaluationSettings()
    for model in models:
        check_scored(str(model))
    chosen = get_plugin(plugin)
    if not isinstance(chosen, Evaluator):
        hint = "score its networks in your own code, or give it the methods of l0prune.plugin.Evaluator"
        raise ConfigError("plugin evaluates nothing", where=plugin, hint=hint)
    for task in settings.tasks:
        if task not in chosen.tasks:
            raise ConfigError("no such task", where=task, hint=nearest(task, chosen.tasks))
    names = list(map(str, models))
    against = settings.against or _teacher(names)
    scored = list(dict.fromkeys([against, *names] if against else names))
    try:
        return chosen.evaluate(scored, replace(settings, against=against), note)
    except ConfigError as error:
        if error.where != against or against in (settings.against, *names):
            raise
        hint = "layers are compared with the run's teacher: name it where it is now, or another model, with --against"
        raise ConfigError(error.what, where=against, got=error.got, expected=error.expected, hint=hint) from error


def _teacher(models: Sequence[str]) -> str | None:
    """The teacher of the first run directory."""
    return next((report["teacher"] for report in map(read_report, models) if report), None)
