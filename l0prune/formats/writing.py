"""A network into another stack's format: written, opened again, compared in two sizes, then put in place."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import ConfigError, L0PruneError, ProofError
from l0prune.formats.example import Example, Free, example_of
from l0prune.formats.registry import MODULE_FORMATS, ModuleFormat, module_format
from l0prune.gates import Gates
from l0prune.plugin import Export
from l0prune.proof import decibels, relative_difference, relative_noise
from l0prune.support import assembled, check_finite, copied, named_weights, one_line

FLOAT32_BYTES = 4


def export_module(
    module: nn.Module,
    example_inputs: Any,
    *,
    to: str,
    out: Path,
    free: Free | None = None,
    calibration: Iterable[Any] | None = None,
) -> Export:
    """Write a network in another stack's format.

    Args:
        module: Pruned or not; it is left as it is.
        example_inputs: A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments.
        to: One of `MODULE_FORMATS`.
        out: The file or folder to make.
        free: By argument the dimensions whose sizes stay free in a program; None for that of the batch, where the
            network allows it.
        calibration: For formats in int8 with scales that are found beforehand: batches of inputs, each like
            `example_inputs`.

    Raises:
        ConfigError: The format is unknown or cannot hold the network, a package is missing, gates are on it, or there
            is no calibration where there must be, or the other way round.
        ProofError: What was written behaves otherwise; nothing is left of it.
        RunError: A weight is not finite, or `out` cannot be made.
    """
    form, name = module_format(to), type(module).__name__
    if any(isinstance(part, Gates) for part in module.modules()):
        hint = "export what finalize() returns"
        raise ConfigError("the network has gates", where=name, hint=hint)
    form.needs()
    if refusal := form.refuses(module):
        raise ConfigError(f"{to} cannot hold this network", where=name, got=refusal)
    batches = _calibration(form, calibration)
    check_finite(named_weights(module).items(), where=name)
    ready = copied(module).cpu().eval().requires_grad_(False)
    example = example_of(ready, example_inputs, free if form.free_batch else {})
    try:
        example.run(ready)
    except Exception as error:
        raise ConfigError("the network does not run on the example", where=name, got=one_line(error)) from error
    example = replace(example, calibration=[_batch(ready, inputs, number) for number, inputs in enumerate(batches)])
    # A program that cannot leave the number of samples free may still hold the one of the example.
    tries = [example, replace(example, free={})] if free is None and example.free else [example]
    reason: object = ""
    with assembled(out) as place:
        for number, trial in enumerate(tries):
            try:
                notes, difference, noise = _written(form, ready, trial, place)
                break
            except (ConfigError, ProofError) as error:
                # Numbers are rounded in other sizes too.
                if number + 1 == len(tries) or (form.lossy and isinstance(error, ProofError)):
                    raise
                reason = error.got or error.what
                place.unlink(missing_ok=True)
        else:
            raise AssertionError("there is no way to try")
        if form.free_batch:
            sizes = {key: tuple(dims) for key, dims in trial.free.items()}
            held = "sizes are those of the example alone" + (f" ({reason})" if number else "")
            notes = [*notes, f"free dimensions: {sizes}" if sizes else held]
        written = size_on_disk(place)
    return Export(
        source=name,
        format=to,
        path=str(out),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        max_relative_difference=difference,
        signal_to_noise_db=decibels(noise) if form.lossy else None,
        file_bytes=written,
        float32_bytes=FLOAT32_BYTES * sum(parameter.numel() for parameter in module.parameters()),
        notes=(*notes, f"opened again by {form.opened_by}"),
    )


def _calibration(form: ModuleFormat, calibration: Iterable[Any] | None) -> list[Any]:
    """The batches to calibrate on."""
    if form.calibrated and calibration is None:
        hint = "onnx-int8-dynamic needs none"
        raise ConfigError(f"{form.name} needs calibration", expected="calibration=BATCHES of inputs", hint=hint)
    if calibration is None:
        return []
    if not form.calibrated:
        names = ", ".join(name for name, each in MODULE_FORMATS.items() if each.calibrated)
        raise ConfigError("the format takes no calibration", where=form.name, expected=f"one of {names}")
    if isinstance(calibration, Tensor):
        raise ConfigError("calibration is one tensor", got=tuple(calibration.shape), expected="a list of batches")
    if not (batches := list(calibration)):
        raise ConfigError("nothing to calibrate on", got="no batch", expected="one batch of inputs or more")
    return batches


def _batch(module: nn.Module, inputs: Any, number: int) -> Example:
    """A batch of the calibration, which the network must run on."""
    try:
        example = example_of(module, inputs, {})
        example.run(module)
    except ConfigError:
        raise
    except Exception as error:
        where = f"batch {number} of the calibration"
        raise ConfigError("the network does not run on it", where=where, got=one_line(error)) from error
    return example


def size_on_disk(place: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return sum(path.stat().st_size for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file())


def _written(form: ModuleFormat, module: nn.Module, example: Example, place: Path) -> tuple[list[str], float, float]:
    """Write, open and compare; notes, the largest relative difference, and the largest share of noise."""
    name = type(module).__name__
    sizes = [example, example.another()] if example.free else [example]
    try:
        expected = [given.run(module) for given in sizes]
    except Exception as error:
        what = "the network itself does not run in other sizes along the free dimensions"
        raise ConfigError(what, where=name, got=one_line(error)) from error
    if not form.suffix:
        place.mkdir()
    try:
        notes = form.write(module, example, place)
        opened = form.open(place, module)
    except (L0PruneError, OSError):
        raise
    except Exception as error:
        raise ConfigError(f"{form.name} cannot hold this network", where=name, got=_reason(error)) from error
    largest = noisiest = 0.0
    for given, outputs in zip(sizes, expected, strict=True):
        try:
            got = opened(given)
            difference, noise = relative_difference(outputs, got), relative_noise(outputs, got)
        except Exception as error:
            what = f"the {form.name} export does not run"
            raise ProofError(what, where=name, got=_reason(error)) from error
        # A NaN must not pass for small.
        largest = difference if not difference <= largest else largest
        noisiest = max(noisiest, noise)
    tolerance = _tolerance(form, module)
    if not (noisiest if form.lossy else largest) <= tolerance:
        got, expected = f"a relative difference of {largest:.1e}", f"at most {tolerance}"
        if form.lossy:
            got, expected = f"a signal-to-noise ratio of {decibels(noisiest):.1f} dB", f"{decibels(tolerance):.0f} dB"
        what = f"the {form.name} export does not behave as the network"
        raise ProofError(what, where=name, got=got, expected=expected)
    return notes, largest, noisiest


def _tolerance(form: ModuleFormat, module: nn.Module) -> float:
    """Programs may sum in another order, which half precision shows."""
    coarsest = max((torch.finfo(p.dtype).eps for p in module.parameters() if p.is_floating_point()), default=0)
    return max(form.tolerance, 50 * coarsest) if form.tolerance and coarsest > 1e-4 else form.tolerance


def _reason(error: Exception) -> str:
    """The line of an exporter's error that says what stands in the way, with the place in the user's code if given."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Failed to", "##", "- ", "To debug", "==", "(Refer to"))]
    return one_line((telling or lines or [type(error).__name__])[0])
