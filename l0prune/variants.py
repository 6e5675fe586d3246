"""The forms in which a model is measured: in which dtype, by which backend."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import ConfigError, nearest

DTYPES = ("float32", "bfloat16", "int8")
BACKENDS = ("eager", "compile", "onnxruntime")
_INT8_HINT = "int8 is measured with the eager and onnxruntime backends, on the CPU"

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
    facts: Mapping[str, Any] | None = None
    """More figures for the report: file size, load time, peak memory."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the models are given."""

    name: str
    inputs: Inputs
    """Positional arguments of a module."""
    feeds: Mapping[str, Tensor] | None = None
    """Inputs of an ONNX file by name; by default those of the module in its order."""
    seconds: float | None = None
    """How much audio, or whatever lasts, the inputs hold."""
    batch: int = 1


def check_variants(dtypes: Sequence[str], backends: Sequence[str], device: torch.device) -> None:
    """Raise a `ConfigError` for a dtype or backend that is unknown, missing, or not for this device."""
    for kind, given, known in (("dtype", dtypes, DTYPES), ("backend", backends, BACKENDS)):
        for name in given:
            if name not in known:
                raise ConfigError(f"no such {kind}", where=name, hint=nearest(name, known))
    if "int8" in dtypes and (device.type != "cpu" or set(backends) == {"compile"}):
        raise ConfigError("int8 cannot be measured here", where=device, hint=_INT8_HINT)
    if "onnxruntime" in backends:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError("backend is missing", where="onnxruntime", hint="pip install 'l0prune[onnx]'") from error
        del onnxruntime


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
                if contender.module is None and backend != "onnxruntime":
                    continue
                if (dtype, backend) in (("int8", "compile"), ("bfloat16", "onnxruntime")):
                    continue
                make = _session if backend == "onnxruntime" else _module
                made[name, dtype, backend] = make(contender, dtype, backend, device, threads)
    missing = [name for name in contenders if not any(key[0] == name for key in made)]
    if missing:
        raise ConfigError("model is an ONNX file", where=missing[0], hint="measure it with the onnxruntime backend")
    return made


def _module(contender: Contender, dtype: str, backend: str, device: torch.device, _threads: int) -> Variant:
    assert contender.module is not None
    module = copy.deepcopy(contender.module).eval().requires_grad_(False).to(device)
    if dtype == "bfloat16":
        module.to(torch.bfloat16)
    if dtype == "int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
    call = torch.compile(module, dynamic=True) if backend == "compile" else module

    def prepare(load: Load) -> Callable[[], object]:
        wanted = torch.bfloat16 if dtype == "bfloat16" else None
        inputs = [tensor.to(device, wanted if tensor.is_floating_point() else None) for tensor in load.inputs]

        def run() -> object:
            with torch.inference_mode():
                return call(*inputs)

        return run

    return prepare


def _session(contender: Contender, dtype: str, _backend: str, device: torch.device, threads: int) -> Variant:
    import onnxruntime

    path = _onnx_file(contender)
    if dtype == "int8":
        path = _quantized(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Its threads would go on spinning beside whoever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    cuda = device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    # What a module returns first, and no copies of all the rest.
    first, names = [session.get_outputs()[0].name], [value.name for value in session.get_inputs()]

    def prepare(load: Load) -> Callable[[], object]:
        given = load.feeds or dict(zip(names, load.inputs, strict=True))
        feeds = {name: tensor.numpy() for name, tensor in given.items() if name in names}
        return lambda: session.run(first, feeds)

    return prepare


def _onnx_file(contender: Contender) -> Path:
    if contender.onnx is None:
        raise ConfigError("model has no ONNX form", hint="export it, or measure another backend")
    return contender.onnx()


def _quantized(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_name(f"{path.stem}.int8.onnx")
    # Convolutions in dynamic int8 are slower than in float32, in onnxruntime as elsewhere.
    quantize_dynamic(path, small, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    return small
