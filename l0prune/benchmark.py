"""How fast networks are on this machine: every variant of every model in turns, beside the one compared with."""

import copy
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.counting import has_fast_bfloat16, macs, parameters
from l0prune.errors import ConfigError, DataError, nearest
from l0prune.report import versions
from l0prune.timing import Ratio, Timing, interleave, speedup

DTYPES = ("float32", "bfloat16", "int8")
BACKENDS = ("eager", "compile", "onnxruntime")
_INT8_HINT = "int8 is measured with the eager and onnxruntime backends, on the CPU"

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model to measure."""

    module: nn.Module | None = None
    """In evaluation mode; None for what is an ONNX file alone."""
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


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant of one model under one load."""

    model: str
    load: str
    batch: int
    threads: int
    dtype: str
    backend: str
    latency_ms: float
    """Median."""
    latency_p95_ms: float
    spread: float
    """Interquartile range as a share of the median."""
    real_time_factor: float | None
    """Seconds it takes for a second of audio."""
    throughput: float | None
    """Seconds of audio a second."""
    speedup: Ratio | None
    """Over the model that is compared with, in float32, eager; with its 95 % confidence interval."""
    rounds: int
    warmup_runs: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a benchmark found."""

    models: Mapping[str, Mapping[str, Any]]
    """parameters, macs (under the first load), and the contenders' own facts, by name."""
    rows: Sequence[Row]
    against: str | None
    device: str
    processor: str
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def measure(
    models: Mapping[str, nn.Module | Contender],
    example_inputs: Inputs | Tensor | Sequence[Load],
    *,
    against: str | None = None,
    dtypes: Sequence[str] = ("float32",),
    backends: Sequence[str] = ("eager",),
    threads: Sequence[int] = (),
    device: str | torch.device = "cpu",
    seconds: float = 10.0,
) -> Measurement:
    """Measure latency, throughput and size of models.

    Args:
        models: By name.
        example_inputs: A tensor or several, the module's positional arguments; or a list of loads.
        against: The model that the others are compared with; the first by default, if there are several.
        dtypes: Of "float32", "bfloat16", "int8" (dynamic quantisation of linear layers).
        backends: Of "eager", "compile", "onnxruntime".
        threads: Numbers of CPU threads; torch's present one by default.
        device: Where to run.
        seconds: How long to measure under one load, for all variants together.

    Returns:
        A row for each load, number of threads, model, dtype and backend.

    Raises:
        ConfigError: An unknown dtype or backend, or one whose package is missing.
        DataError: A model cannot run on the inputs.
    """
    _check(dtypes, backends, torch.device(device))
    contenders = {n: m if isinstance(m, Contender) else Contender(module=m) for n, m in models.items()}
    if against is None and len(contenders) > 1:
        against = next(iter(contenders))
    if against is not None and against not in contenders:
        raise ConfigError("no such model to compare with", where=against, hint=nearest(against, contenders))
    loads = _loads(example_inputs)
    shortest = {name: (contender.facts or {}).get("shortest_seconds") for name, contender in contenders.items()}
    rows: list[Row] = []
    for number in threads or (torch.get_num_threads(),):
        with _threads(number):
            variants = _variants(contenders, dtypes, backends, torch.device(device), number)
            if against is not None and (against, "float32", "eager") not in variants:
                variants |= _variants({against: contenders[against]}, ("float32",), ("eager",), torch.device(device), 1)
            for load in loads:
                rows += _rows(variants, load, against, number, seconds, torch.device(device), shortest)
    return Measurement(
        models={name: _facts(contender, loads[0], torch.device(device)) for name, contender in contenders.items()},
        rows=rows,
        against=against,
        device=str(device),
        processor=processor(torch.device(device)),
        versions=versions(),
    )


def _check(dtypes: Sequence[str], backends: Sequence[str], device: torch.device) -> None:
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


def _loads(example_inputs: Inputs | Tensor | Sequence[Load]) -> list[Load]:
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if all(isinstance(item, Load) for item in example_inputs):
        return list(example_inputs)  # type: ignore[arg-type]
    inputs: Inputs = tuple(example_inputs)  # type: ignore[arg-type]
    return [Load(name="example inputs", inputs=inputs, batch=len(inputs[0]) if inputs[0].ndim else 1)]


Variant = Callable[[Load], Callable[[], object]]
"""Load -> what to time."""


def _variants(
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


def _rows(
    variants: Mapping[tuple[str, str, str], Variant],
    load: Load,
    against: str | None,
    threads: int,
    seconds: float,
    device: torch.device,
    shortest_seconds: Mapping[str, float | None],
) -> list[Row]:
    runs = {}
    for (model, dtype, backend), prepare in variants.items():
        shortest = shortest_seconds.get(model)
        if shortest and load.seconds and load.seconds < shortest:
            raise DataError("too short for the model", where=f"{model}, {load.name}", expected=f"{shortest} s or more")
        run = prepare(load)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run()
        except Exception as error:
            got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            what = f"model cannot run in {dtype} with the {backend} backend"
            raise DataError(what, where=f"{model}, {load.name}", got=got) from error
        runs[f"{model}\n{dtype}\n{backend}"] = run
    times = interleave(runs, seconds=seconds, device=str(device))
    base = times.get(f"{against}\nfloat32\neager")
    return [_row(key, timing, base, load, threads) for key, timing in times.items()]


def _row(key: str, timing: Timing, base: Timing | None, load: Load, threads: int) -> Row:
    model, dtype, backend = key.split("\n")
    audio = load.seconds * load.batch if load.seconds else None
    return Row(
        model=model,
        load=load.name,
        batch=load.batch,
        threads=threads,
        dtype=dtype,
        backend=backend,
        latency_ms=1000 * timing.median,
        latency_p95_ms=1000 * timing.p95,
        spread=timing.spread,
        real_time_factor=timing.median / audio if audio else None,
        throughput=audio / timing.median if audio else None,
        speedup=speedup(base, timing) if base else None,
        rounds=len(timing.seconds),
        warmup_runs=timing.warmup_runs,
    )


def _facts(contender: Contender, load: Load, device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {"parameters": None, "macs": None}
    if contender.module is not None:
        module = copy.deepcopy(contender.module).to(device).eval()
        inputs = [tensor.to(device) for tensor in load.inputs]
        facts |= {"parameters": parameters(module), "macs": macs(lambda: module(*inputs))}
    return facts | dict(contender.facts or {})


@contextmanager
def _threads(number: int) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processor(device: torch.device) -> str:
    """The name of what a device computes with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def default_dtypes(device: torch.device) -> tuple[str, ...]:
    """The dtypes worth measuring: bfloat16 where the hardware has it."""
    return ("float32", "bfloat16") if has_fast_bfloat16(device) else ("float32",)
