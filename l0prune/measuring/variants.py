"""The forms in which a model is measured: in which dtype, by which backend."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import ConfigError, nearest
from l0prune.measuring.machine import has_fast_bfloat16
from l0prune.measuring.onnx_files import EXTRAS, check_library, open_onnx
from l0prune.support import copied

DTYPES = ("float32", "bfloat16", "int8")
BACKENDS = ("eager", "compile", *EXTRAS)
# OpenVINO takes onnxruntime's int8 files, and multiplies in float32.
_MISSING = {("int8", "compile"), ("int8", "openvino"), ("bfloat16", "onnxruntime")}
_HINTS = {
    "int8": "int8 is measured with the eager and onnxruntime backends, on the CPU",
    "bfloat16": "bfloat16 is measured with eager and compile, and with openvino where the CPU multiplies in it",
}

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model to measure."""

    module: nn.Module | None = None
    """In evaluation mode; None for what is an ONNX file alone."""
    counted: nn.Module | None = None
    """Whose parameters and multiply-accumulates are reported: `module` by default, which may do them in fewer."""
    onnx: Callable[[], Path] | None = None
    """Makes or finds the model's ONNX file."""
    onnx_dtype: str | None = None
    """What a file that is all there is computes in; None where it is float32 and may be quantised."""
    variant: "Callable[[str, str, torch.device, int], Variant] | None" = None
    """A dtype, a backend, a device and a number of threads -> what is timed. For what is more than a module or a
    file, in place of both."""
    variants: frozenset[tuple[str, str]] = frozenset()
    """The dtypes and backends that `variant` has."""
    facts: Mapping[str, Any] | None = None
    """More figures for the report: file size, load time, peak memory."""
    packages: Sequence[str] = ()
    """Distributions, beside those that the core needs, whose versions matter to how fast it is."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the models are given."""

    name: str
    inputs: Inputs
    """Positional arguments of a module."""
    feeds: Mapping[str, Tensor] | None = None
    """Inputs of an ONNX file by name; by default those of the module in its order."""
    seconds: float | None = None
    """How long each input lasts; None for inputs that do not last."""
    unit: str = "second"
    """What a second of an input is called, for example "second of video"."""
    batch: int = 1


def check_variants(dtypes: Sequence[str], backends: Sequence[str], device: torch.device) -> None:
    """Raise a `ConfigError` for a dtype or backend that is unknown, missing, or not for this device."""
    for kind, given, known in (("dtype", dtypes, DTYPES), ("backend", backends, BACKENDS)):
        if not given:
            raise ConfigError(f"no {kind} to measure", expected=" or ".join(known))
        for name in given:
            if name not in known:
                raise ConfigError(f"no such {kind}", where=name, hint=nearest(name, known))
    for dtype in dtypes:
        if (dtype == "int8" and device.type != "cpu") or not any(_exists(dtype, backend) for backend in backends):
            raise ConfigError(f"{dtype} cannot be measured here", where=device, hint=_HINTS[dtype])
    if "openvino" in backends and device.type != "cpu":
        raise ConfigError("openvino cannot be measured here", where=device, hint="it is measured on the CPU")
    for backend in backends:
        if backend in EXTRAS:
            check_library(backend)


def _exists(dtype: str, backend: str) -> bool:
    """Whether a backend computes in a dtype."""
    if (dtype, backend) == ("bfloat16", "openvino"):
        # Without the hardware its figures would say nothing of bfloat16.
        return has_fast_bfloat16(torch.device("cpu"))
    return (dtype, backend) not in _MISSING


Variant = Callable[[Load], Callable[[], object]]
"""Load -> what to time."""


def make_variants(
    contenders: Mapping[str, Contender],
    dtypes: Sequence[str],
    backends: Sequence[str],
    device: torch.device,
    threads: int,
) -> dict[tuple[str, str, str], Variant]:
    """Every model in every dtype and backend that it has; what is made once for all loads is made here."""
    made: dict[tuple[str, str, str], Variant] = {}
    for name, contender in contenders.items():
        for backend in backends:
            for dtype in dtypes:
                if contender.variant is not None:
                    if (dtype, backend) in contender.variants:
                        made[name, dtype, backend] = contender.variant(dtype, backend, device, threads)
                    continue
                if (contender.module is None and backend not in EXTRAS) or not _exists(dtype, backend):
                    continue
                if contender.onnx_dtype == "int8" != dtype:
                    continue
                make = _file if backend in EXTRAS else _module
                made[name, dtype, backend] = make(contender, dtype, backend, device, threads)
    missing = [name for name in contenders if not any(key[0] == name for key in made)]
    if missing and (has := contenders[missing[0]].variants):
        got = f"{' or '.join(dtypes)} with {' or '.join(backends)}"
        expected = ", ".join(f"{dtype} with {backend}" for dtype, backend in sorted(has))
        raise ConfigError("model cannot be measured so", where=missing[0], got=got, expected=expected)
    if missing and contenders[missing[0]].onnx_dtype == "int8":
        hint = "measure it with --dtypes int8 --backends onnxruntime"
        raise ConfigError("model is an ONNX file in int8", where=missing[0], hint=hint)
    if missing:
        hint = "measure it with --dtypes float32 --backends onnxruntime (or openvino)"
        raise ConfigError("model is an ONNX file", where=missing[0], hint=hint)
    return made


def linear_layers_in_int8(module: nn.Module) -> nn.Module:
    """A copy whose linear layers compute in int8 by dynamic quantisation; for the CPU."""
    with warnings.catch_warnings():
        # It has moved to another package, which is not needed for anything else.
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)


def _module(contender: Contender, dtype: str, backend: str, device: torch.device, _threads: int) -> Variant:
    assert contender.module is not None
    module = copied(contender.module).eval().requires_grad_(False).to(device)
    if dtype == "bfloat16":
        module.to(torch.bfloat16)
    if dtype == "int8":
        module = linear_layers_in_int8(module)
    call = torch.compile(module, dynamic=True) if backend == "compile" else module

    def prepare(load: Load) -> Callable[[], object]:
        wanted = torch.bfloat16 if dtype == "bfloat16" else None
        inputs = [tensor.to(device, wanted if tensor.is_floating_point() else None) for tensor in load.inputs]

        def run() -> object:
            with torch.inference_mode():
                return call(*inputs)

        return run

    return prepare


def _file(contender: Contender, dtype: str, backend: str, device: torch.device, threads: int) -> Variant:
    if contender.onnx is None:
        raise ConfigError("model has no ONNX form", hint="export it, or measure another backend")
    program = open_onnx(contender.onnx(), backend, dtype, device, threads)

    def prepare(load: Load) -> Callable[[], object]:
        given = load.feeds or dict(zip(program.inputs, load.inputs, strict=True))
        feeds = {name: tensor.numpy() for name, tensor in given.items() if name in program.inputs}
        return program.prepare(feeds)

    return prepare
