"""`l0prune compress`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from l0prune_cli import options


def command(
    plugin: options.PluginFlag,
    teacher: options.TeacherFlag = None,
    data: options.DataFlag = None,
    target_sparsity: options.SparsityFlag = None,
    metric: Annotated[str | None, typer.Option(help="What the target counts: params, macs or latency.")] = None,
    target_speedup: Annotated[float | None, typer.Option(help="Times faster, with --metric latency.")] = None,
    target_ms: Annotated[float | None, typer.Option(help="Milliseconds, with --metric latency.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of both stages together; 0 prunes without training.")] = None,
    units: options.UnitsFlag = None,
    recipe: options.RecipeFlag = None,
    config: options.ConfigFlag = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default a new one below runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --out.")] = False,
    device: Annotated[str | None, typer.Option(help="A torch device; by default a GPU where there is one.")] = None,
    compiled: Annotated[bool | None, typer.Option("--compile", help="Compile training with torch.compile.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw.")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings as TOML and stop.")] = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Compress a network: distil and prune together, cut, distil further."""
    import l0prune

    if target_sparsity is not None and (target_speedup is not None or target_ms is not None):
        time = "--target-speedup" if target_speedup is not None else "--target-ms"
        raise l0prune.ConfigError("two targets", got=f"--target-sparsity and {time}", expected="one of them")
    settings = {
        **options.given(target_sparsity=target_sparsity, metric=metric, device=device, seed=seed, compile=compiled),
        **options.given(target_speedup=target_speedup, target_ms=target_ms, steps=steps),
        **options.plugin_settings(plugin, teacher=teacher, data=data, units=units),
    }
    if print_config:
        layers = [l0prune.read_toml(config)] if config else []
        chosen = l0prune.resolve(l0prune.get_plugin(plugin), *layers, settings, recipe=recipe)
        values = l0prune.describe(chosen)
        print(json.dumps(values, indent=1) + "\n" if as_json else l0prune.write_toml(values), end="")
        return

    from l0prune_cli.progress import TerminalObserver
    from l0prune_cli.tables import make_console

    console = make_console(stderr=as_json)
    with TerminalObserver(console) as observer:
        report = l0prune.compress(
            plugin, recipe=recipe, config=config, settings=settings, out=out, resume=resume, observer=observer
        )
    if as_json and options.is_main_process():
        json.dump(report.to_json(), sys.stdout, indent=1)
        print()
