"""`l0prune compress`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from l0prune_cli import options

_TIMES = ("target_speedup", "target_ms")


def command(
    plugin: options.PluginFlag,
    target_sparsity: options.SparsityFlag = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC=VALUE,...",
            help="What is to be left of each metric at most: params=25%,latency=40ms. In place of the flags beside it.",
            show_default="none",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What the target counts: params, layer-params, macs, disk, latency or the name of one's own."
        ),
    ] = None,
    target_speedup: Annotated[float | None, typer.Option(help="Times faster, with --metric latency.")] = None,
    target_ms: Annotated[float | None, typer.Option(help="Milliseconds, with --metric latency.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of both stages together; 0 prunes without training.")] = None,
    recipe: options.RecipeFlag = None,
    config: options.ConfigFlag = None,
    out: Annotated[Path | None, typer.Option(help="Run directory.", show_default="a new one below runs/")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --out.")] = False,
    device: Annotated[str | None, typer.Option(help="A torch device; auto is a GPU where there is one.")] = None,
    compiled: Annotated[bool | None, typer.Option("--compile", help="Compile training with torch.compile.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw.")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings as TOML and stop.")] = False,
    assignments: options.SetFlag = None,
    as_json: options.JsonFlag = False,
    *,
    own: Mapping[str, Any],
) -> None:
    """Compress a network: distil and prune together, cut, distil further."""
    import l0prune
    from l0prune.size import parse_targets

    flags = {
        **options.given(target_sparsity=target_sparsity, metric=metric, device=device, seed=seed, compile=compiled),
        **options.given(target_speedup=target_speedup, target_ms=target_ms, steps=steps, recipe=recipe),
    }
    if target is not None:
        both = [key for key in (*_TIMES, "target_sparsity", "metric") if key in flags]
        if both:
            got = f"--target and --{both[0].replace('_', '-')}"
            raise l0prune.ConfigError("two targets", got=got, expected="one of them")
        flags["target"] = parse_targets(target)
    settings = options.settings_of(plugin, flags, own, assignments)
    if "target_sparsity" in settings and (times := [key for key in _TIMES if key in settings]):
        given = (f"--{key.replace('_', '-')}" for key in ("target_sparsity", times[0]))
        raise l0prune.ConfigError("two targets", got=" and ".join(given), expected="one of them")
    if print_config:
        layers = [l0prune.read_toml(config)] if config else []
        chosen = l0prune.resolve(l0prune.get_plugin(plugin), *layers, settings)
        values = l0prune.describe(chosen)
        print(json.dumps(values, indent=1) + "\n" if as_json else l0prune.write_toml(values), end="")
        return

    from l0prune.adapters.console import make_console
    from l0prune.adapters.terminal import TerminalObserver

    console = make_console(stderr=as_json)
    with TerminalObserver(console) as observer:
        report = l0prune.compress(plugin, config=config, settings=settings, out=out, resume=resume, observer=observer)
    if as_json and options.is_main_process():
        json.dump(report.to_json(), sys.stdout, indent=1)
        print()
