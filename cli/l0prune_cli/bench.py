"""`l0prune bench`."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from l0prune_cli import factories, options

if TYPE_CHECKING:
    from torch import nn

    import l0prune

_Number = TypeVar("_Number", int, float)
_LENGTHS, _BATCH_SIZES = "1,5,15,30", "1"


def command(
    models: Annotated[
        list[str], typer.Argument(help="Run directories, teachers, ONNX files, or module:factory in Python.")
    ],
    against: Annotated[
        str | None, typer.Option(help="The model that the others are compared with.", show_default="the first")
    ] = None,
    lengths: Annotated[str, typer.Option(help="Seconds that an input lasts, comma-separated.")] = _LENGTHS,
    batch_sizes: Annotated[str, typer.Option(help="Inputs a batch, comma-separated.")] = _BATCH_SIZES,
    threads: Annotated[
        str | None, typer.Option(help="CPU threads, comma-separated.", show_default="torch's own number")
    ] = None,
    dtypes: Annotated[str, typer.Option(help="float32, bfloat16, int8.")] = "float32",
    backends: Annotated[str, typer.Option(help="eager, compile, onnxruntime, openvino.")] = "eager",
    seconds: Annotated[float, typer.Option(help="How long to measure at each length.")] = 10.0,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
    plot: Annotated[Path | None, typer.Option(help="A PNG file to draw.", show_default="none")] = None,
    plugin: options.ReaderFlag = None,
    build: options.BuildFlag = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Measure how fast models are on this machine, beside each other."""
    import l0prune
    from l0prune.workflows import example_missing, is_own_run
    from l0prune_cli.tables import make_console, measurement_tables, print_result

    sources: list[str] = list(dict.fromkeys([against, *models] if against else models))
    audio, clips = _numbers("--lengths", lengths, float), _numbers("--batch-sizes", batch_sizes, int)
    workers = _numbers("--threads", threads, int) if threads else []
    where = l0prune.pick_device(device)
    l0prune.check_variants(options.names(dtypes), options.names(backends), where)
    if not 0 < seconds < math.inf:
        raise l0prune.ConfigError("seconds out of range", where="--seconds", got=seconds, expected="above 0")
    if plot:
        l0prune.check_writable(plot)
    dense = factories.builder(build)
    with tempfile.TemporaryDirectory() as workspace:
        contenders: dict[str, l0prune.Contender] = {}
        loads: list[l0prune.Load] = []
        if plugin is not None:
            l0prune.get_plugin(plugin)  # A wrong name is told also where no network needs it.
        own = {source: _own(source, dense) for source in sources if factories.is_name(source) or is_own_run(source)}
        others = [source for source in sources if source not in own]
        if others:
            chosen = l0prune.get_plugin(plugin := options.plugin_of(others, plugin))
            if not isinstance(chosen, l0prune.Benchable):
                raise l0prune.ConfigError("plugin measures nothing", where=plugin)
            for number, source in enumerate(others):
                folder = Path(workspace) / str(number)
                folder.mkdir()
                contenders[source] = chosen.contender(source, folder)
            loads = [chosen.load(length, batch) for batch in clips for length in audio]
        if own:
            # What is known of such a network are the inputs that came with it.
            loads = [load for _, load in own.values() if load.inputs][:1]
            if not loads:
                raise example_missing(next(iter(own)))
        contenders = {source: own[source][0] if source in own else contenders[source] for source in sources}
        found = l0prune.measure(
            contenders,
            loads,
            against=against,
            dtypes=options.names(dtypes),
            backends=options.names(backends),
            threads=workers,
            device=where,
            seconds=seconds,
            note=make_console(stderr=True).print,
        )
    if plot:
        l0prune.draw_measurement(found, plot)
    print_result(found.to_json(), *measurement_tables(found), as_json=as_json)


def _numbers(flag: str, text: str, kind: type[_Number]) -> list[_Number]:
    import l0prune

    try:
        numbers = [kind(name) for name in options.names(text)]
    except ValueError as error:
        what = "not a list of whole numbers" if kind is int else "not a list of numbers"
        raise l0prune.ConfigError(what, where=flag, got=text, expected="1,5 say") from error
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise l0prune.ConfigError("out of range", where=flag, got=text, expected="numbers above 0")
    return numbers


def _own(source: str, dense: "Callable[[], nn.Module] | None") -> "tuple[l0prune.Contender, l0prune.Load]":
    """What a factory makes, a module and its example inputs; or the network of a run, and the inputs kept with it."""
    from torch import Tensor, nn

    import l0prune
    from l0prune.workflows import open_run

    if not factories.is_name(source):
        module, inputs = open_run(source, dense)
        return l0prune.Contender(module=module), l0prune.Load(name="example inputs", inputs=inputs)
    made = factories.call(source)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise l0prune.ConfigError("factory returns something else", where=source, expected="(module, example inputs)")
    inputs = (made[1],) if isinstance(made[1], Tensor) else tuple(made[1])
    return l0prune.Contender(module=made[0].eval()), l0prune.Load(name="example inputs", inputs=inputs)
