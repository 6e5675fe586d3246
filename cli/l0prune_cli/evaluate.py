"""`l0prune evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from l0prune_cli import options


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Run directories, anything that --teacher takes, filterbanks, filterbanks:cmvn, or random:MODEL."
        ),
    ],
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            "--task",
            help="Comma-separated names of the plugin's tasks.",
            show_default="all for which there are labels",
        ),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Labelled sets; may be repeated.", show_default="the embedded one")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Compare layers with this model.", show_default="the first run's teacher")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Probes to train for each model and task.", min=1)] = 3,
    max_minutes: Annotated[float, typer.Option(help="Most data in each split of each task.")] = 30.0,
    shuffle_labels: Annotated[bool, typer.Option("--shuffle-labels", help="Check that this gives chance.")] = False,
    device: Annotated[str, typer.Option(help="A torch device; auto is a GPU where there is one.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file to write; evaluation.json in a run's folder gets into its report.", show_default="none"
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="A PNG file to draw.", show_default="none")] = None,
    plugin: options.ReaderFlag = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Score networks through their own heads, or frozen encoders by small probes on their hidden states."""
    import l0prune
    from l0prune_cli.tables import evaluation_tables, make_console, print_result

    settings = l0prune.EvaluationSettings(
        tasks=options.names(tasks),
        data=tuple(data or ()),
        against=against,
        seeds=tuple(range(seeds)),
        device=device,
        max_minutes=max_minutes,
        shuffle_labels=shuffle_labels,
    )
    # Scoring takes long, and what it found would be lost.
    for path in filter(None, (out, plot)):
        l0prune.check_writable(path)
    found = l0prune.evaluate(
        models, plugin=options.plugin_of(models, plugin), settings=settings, note=make_console(stderr=True).print
    )
    if out:
        l0prune.write_json(out, found.to_json())
    if plot:
        l0prune.draw_evaluation(found, plot)
    print_result(found.to_json(), *evaluation_tables(found), as_json=as_json)
