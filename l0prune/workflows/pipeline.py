"""compress(): from what a caller gives to a run that is ready to begin."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from l0prune.distributed import joined, together
from l0prune.errors import ConfigError, PluginError
from l0prune.plugin import OwnTask, Plugin, Task, as_before, came_later, describe, get_plugin, may_change, resolve
from l0prune.storage import RunDirectory, claim_free
from l0prune.support import build, known_arguments, random_state_kept, read_toml, safe_children
from l0prune.workflows.observer import Observer, watched
from l0prune.workflows.results import CompressionReport
from l0prune.workflows.run import CompressionRun


@known_arguments
def compress(
    plugin: str | Plugin | Task,
    *,
    recipe: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    progress: bool = False,
) -> CompressionReport:
    """Compress a network by joint distillation and pruning, then further distillation.

    The caller's random generators, compiler settings and warning filters are afterwards what they were before.

    Args:
        plugin: An installed plugin's name, a plugin object, or a task made of your own objective and data.
        recipe: One of the plugin's named settings; its first by default.
        config: A TOML file whose settings go over the recipe's.
        settings: Nested settings that go over both, {"target_sparsity": 0.5, "joint": {"steps": 2000}} say.
        out: The run directory; by default the first free one below `runs/`.
        resume: Continue the interrupted run in `out`.
        observer: Watches the run; by default the logger `l0prune` hears of it, at the level INFO.
        progress: Show the run on standard error as the command does, beside what the observer does.

    Returns:
        What was achieved; the same is in report.json. `l0prune.load(report.run_directory)` opens the network.

    Raises:
        L0PruneError: A setting, the data, the target or the run directory cannot be used.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    with random_state_kept(), safe_children(), joined() as processes, ExitStack() as claims:
        watcher = claims.enter_context(watched(observer, progress, speaks=processes.is_main))

        def prepare() -> CompressionRun:
            chosen = OwnTask(plugin) if isinstance(plugin, Task) else plugin
            chosen = get_plugin(chosen) if isinstance(chosen, str) else chosen
            if isinstance(chosen, type) or not isinstance(chosen, Plugin):
                expected = "the name of an installed plugin, a plugin object or a Task"
                raise PluginError("not a plugin", got=repr(plugin), expected=expected)
            layers = [read_toml(Path(config))] if config else []
            if out and resume:
                layers.insert(0, as_before(chosen, RunDirectory(Path(out)).began_with()))
            run = resolve(chosen, *layers, settings or {}, recipe=recipe)
            if not out and (resume or processes.size > 1):
                what = "--resume needs the run directory" if resume else "several processes need the run directory"
                raise ConfigError(what, expected="--out DIR")
            if not out:
                folder = claim_free(Path("runs") / f"{run.plugin}-{run.recipe}", claims)
            else:
                folder = RunDirectory(Path(out))
                (folder.check_begun if resume else folder.check_free)()
                if processes.is_main:
                    claims.enter_context(folder.held())
            state, notes = None, []
            if resume:
                state, notes = folder.resume(describe(run), may_change(chosen), came_later(chosen))
            for note in notes:
                watcher.note(note)
            torch.manual_seed(run.seed)
            task = chosen.prepare(build(chosen.options, run.options), run)
            return CompressionRun(chosen, task, run, folder, watcher, resume=resume, state=state)

        return together(prepare).execute()
