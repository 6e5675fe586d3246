"""Speech encoders as they are measured: in the form in which they run, and what loading them costs a fresh process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from l0prune import Contender, Load, RunError
from l0prune.quantisation import is_int8
from l0prune.storage import PROBE
from l0prune.support import check_stamp, python
from l0prune_speech.data import SAMPLE_RATE, Framing
from l0prune_speech.deploy.inference import for_inference
from l0prune_speech.formats import from_encoder, load_teacher, to_onnx
from l0prune_speech.options import PACKAGES

_CHILD_SECONDS = 10
_MEMORY = """
import ctypes, gc, json, sys, time
from pathlib import Path

def memory(reset=False):
    # What getrusage calls the peak begins with that of the parent process; Linux keeps a better one.
    status = Path("/proc/self/status")
    if not status.exists():
        try:
            import resource
        except ImportError:
            return 0  # Windows has none.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])
"""
_CHILD = f"""{_MEMORY}
import torch
from l0prune_speech.formats import load_teacher

def seconds_to_load():
    begun = time.perf_counter()
    encoder = load_teacher(sys.argv[1]).encoder
    loaded = time.perf_counter() - begun
    with torch.inference_mode():
        encoder(torch.zeros(1, int(sys.argv[3])))
    return loaded

torch.set_num_threads(int(sys.argv[2]))
"""
_ONNX_CHILD = f"""{_MEMORY}
import numpy, onnxruntime

def seconds_to_load():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = int(sys.argv[2]), 3
    begun = time.perf_counter()
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    loaded = time.perf_counter() - begun
    samples = int(sys.argv[3])
    given = {{"waveforms": numpy.zeros((1, samples), numpy.float32), "lengths": numpy.array([samples])}}
    names = [value.name for value in session.get_inputs()]
    if all(name in given for name in names):
        session.run(None, {{name: given[name] for name in names}})
    return loaded
"""
_TWICE = """
# What the libraries import at their first use, which depends on the file's format, is no cost of the network's.
seconds_to_load()
gc.collect()
if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
    ctypes.CDLL(None).malloc_trim(0)
before = memory(reset=True)
print(json.dumps({"load_seconds": seconds_to_load(), "peak_memory_bytes": memory() - before}))
"""
_CHILD, _ONNX_CHILD = _CHILD + _TWICE, _ONNX_CHILD + _TWICE


def contender(source: str, workspace: Path) -> Contender:
    """A run's student, or any teacher, ready to be measured.

    Args:
        source: As `--teacher` takes it, or an exported ONNX file.
        workspace: A folder for what is made on the way.

    Raises:
        L0PruneError: The source cannot be read.
    """
    path = Path(source)
    if path.suffix == ".onnx" and path.is_file():
        check_stamp(path)
        facts = {"file_bytes": path.stat().st_size, **_in_a_fresh_process(source, _ONNX_CHILD)}
        dtype = "int8" if is_int8(path) else "float32"
        return Contender(onnx=lambda: path, facts=facts, onnx_dtype=dtype)
    encoder = load_teacher(source).encoder
    checkpoint = from_encoder(encoder)
    framing = Framing.of_convolutions(checkpoint.config["extractor_conv_layer_config"])
    facts = {
        "file_bytes": _size(path),
        "shortest_seconds": framing.shortest_samples / SAMPLE_RATE,
        **_in_a_fresh_process(source, _CHILD),
    }

    def onnx() -> Path:
        made = workspace / "model.onnx"
        if not made.exists():
            to_onnx(checkpoint, made)
        return made

    return Contender(module=for_inference(encoder), counted=encoder, onnx=onnx, facts=facts, packages=PACKAGES)


def load(seconds: float, batch: int) -> Load:
    """Noise of a length, a batch of it."""
    samples = round(seconds * SAMPLE_RATE)
    waveforms = torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))
    feeds = {"waveforms": waveforms, "lengths": torch.full((batch,), samples)}
    return Load(
        name=f"{seconds:g} s", inputs=(waveforms,), feeds=feeds, seconds=seconds, unit="second of audio", batch=batch
    )


def _size(path: Path) -> int | None:
    """Bytes of a file, or of the weights in a folder."""
    if path.is_dir():
        weights = [part for part in path.iterdir() if part.suffix in (".safetensors", ".bin") and part.name != PROBE]
        return sum(part.stat().st_size for part in weights) or None
    return path.stat().st_size if path.is_file() else None


def _in_a_fresh_process(source: str, child: str) -> dict[str, Any]:
    """Seconds to load, and the most memory that loading and 10 s of audio take beyond the libraries."""
    arguments = [source, str(torch.get_num_threads()), str(_CHILD_SECONDS * SAMPLE_RATE)]
    command = python("-W", "ignore", "-c", child, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(
            "cannot load the model in a fresh process", where=source, got=done.stderr.strip().splitlines()[-1:]
        )
    return json.loads(done.stdout)
