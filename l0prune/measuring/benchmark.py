"""How fast networks are on this machine: every variant of every model in turns, beside the one compared with."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.errors import ConfigError, DataError, nearest
from l0prune.measuring.count import macs, parameters
from l0prune.measuring.energy import energy_meter
from l0prune.measuring.machine import processor
from l0prune.measuring.onnx_files import EXTRAS
from l0prune.measuring.timing import Ratio, Timing, interleave, speedup
from l0prune.measuring.variants import Contender, Inputs, Load, Variant, check_variants, make_variants
from l0prune.quantisation import int8_words
from l0prune.support import copied, counted, known_arguments, safe_children, say, versions


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
    """Seconds it takes for a second of input; None for what does not last."""
    throughput: float | None
    """Seconds of input a second; None for what does not last."""
    speedup: Ratio | None
    """Over the model that is compared with, in float32, eager; with its 95 % confidence interval."""
    rounds: int
    warmup_runs: int
    first_ms: float | None = None
    """The first call of all under this load, which compiles and gets memory."""
    joules: float | None = None
    """Energy of one call, median; None where the machine does not tell."""


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
    energy: str = ""
    """Whose energy `joules` is, or why there is none."""
    notes: Sequence[str] = ()
    """What to know of the figures on this machine."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@safe_children()
@known_arguments
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
    note: Callable[[str], object] = say,
) -> Measurement:
    """Measure latency, throughput and size of models.

    Args:
        models: By name.
        example_inputs: A tensor or several, the module's positional arguments; or a list of loads.
        against: The model that the others are compared with; the first by default, if there are several.
        dtypes: Of "float32", "bfloat16", "int8" (dynamic quantisation of linear layers).
        backends: Of "eager", "compile", "onnxruntime", "openvino".
        threads: Numbers of CPU threads; torch's present one by default.
        device: Where to run.
        seconds: How long to measure under one load, for all variants together.
        note: Told what is measured, once everything has run under the first load; the logger `l0prune` by default.

    Returns:
        A row for each load, number of threads, model, dtype and backend.

    Raises:
        ConfigError: An unknown dtype or backend, or one whose package is missing.
        DataError: A model cannot run on the inputs.
    """
    check_variants(dtypes, backends, torch.device(device))
    contenders = {n: m if isinstance(m, Contender) else Contender(module=m) for n, m in models.items()}
    if against is None and len(contenders) > 1:
        against = next(iter(contenders))
    if against is not None and against not in contenders:
        raise ConfigError("no such model to compare with", where=against, hint=nearest(against, contenders))
    loads, meter = _loads(example_inputs), energy_meter(torch.device(device))
    _check_lengths(contenders, loads)
    rows: list[Row] = []
    for number in threads or (torch.get_num_threads(),):
        with _threads(number):
            variants = make_variants(contenders, dtypes, backends, torch.device(device), number)
            if against is not None and (against, "float32", "eager") not in variants:
                variants |= make_variants(
                    {against: contenders[against]}, ("float32",), ("eager",), torch.device(device), 1
                )
            for load in loads:
                runs, first = _runs(variants, load, torch.device(device))
                if not rows:
                    total = seconds * len(loads) * max(len(threads), 1)
                    note(f"measuring {counted(len(contenders), 'model')}, about {total:.0f} s and warm-up")
                times = interleave(runs, seconds=seconds, device=str(device), joules=meter.joules)
                base = times.get(f"{against}\nfloat32\neager")
                rows += [_row(key, timing, base, load, number, first[key]) for key, timing in times.items()]
    return Measurement(
        models={name: _facts(contender, loads[0], torch.device(device)) for name, contender in contenders.items()},
        rows=rows,
        against=against,
        device=str(device),
        energy=meter.says,
        notes=tuple(words for words in (int8_words() if "int8" in dtypes else None,) if words),
        processor=processor(torch.device(device)),
        versions=versions(
            *(package for contender in contenders.values() for package in contender.packages),
            *(backend for backend in backends if backend in EXTRAS),
        ),
    )


def _loads(example_inputs: Inputs | Tensor | Sequence[Load]) -> list[Load]:
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if all(isinstance(item, Load) for item in example_inputs):
        return list(example_inputs)  # type: ignore[arg-type]
    inputs: Inputs = tuple(example_inputs)  # type: ignore[arg-type]
    return [Load(name="example inputs", inputs=inputs, batch=len(inputs[0]) if inputs[0].ndim else 1)]


def _check_lengths(contenders: Mapping[str, Contender], loads: Sequence[Load]) -> None:
    for name, contender in contenders.items():
        shortest, longest = ((contender.facts or {}).get(f"{end}_seconds") for end in ("shortest", "longest"))
        for load in loads:
            if shortest and load.seconds and load.seconds < shortest:
                where, expected = f"{name}, {load.name}", f"{shortest} s or more"
                raise DataError("too short for the model", where=where, expected=expected)
            if longest and load.seconds and load.seconds > longest:
                where, expected = f"{name}, {load.name}", f"{longest:g} s or less"
                raise DataError("too long for the model", where=where, expected=expected)


def _runs(
    variants: Mapping[tuple[str, str, str], Variant], load: Load, device: torch.device
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Variants on a load, each of which has run once; and the milliseconds that this took."""
    runs, first = {}, {}
    for (model, dtype, backend), prepare in variants.items():
        run = prepare(load)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                begun = time.perf_counter()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                first[f"{model}\n{dtype}\n{backend}"] = 1000 * (time.perf_counter() - begun)
        except Exception as error:
            got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            what = f"model cannot run in {dtype} with the {backend} backend"
            raise DataError(what, where=f"{model}, {load.name}", got=got) from error
        runs[f"{model}\n{dtype}\n{backend}"] = run
    return runs, first


def _row(key: str, timing: Timing, base: Timing | None, load: Load, threads: int, first_ms: float) -> Row:
    model, dtype, backend = key.split("\n")
    lasting = load.seconds * load.batch if load.seconds else None
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
        real_time_factor=timing.median / lasting if lasting else None,
        throughput=lasting / timing.median if lasting else None,
        speedup=speedup(base, timing) if base else None,
        rounds=len(timing.seconds),
        warmup_runs=timing.warmup_runs,
        first_ms=first_ms,
        joules=None if timing.joules is None else float(np.median(timing.joules)),
    )


def _facts(contender: Contender, load: Load, device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {"parameters": None, "macs": None}
    whole = contender.counted or contender.module
    if whole is not None:
        module = copied(whole).to(device).eval().requires_grad_(False)
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
