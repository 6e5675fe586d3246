"""Speech encoders as they are measured: in the form in which they run, and what loading them costs a fresh process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from l0prune import Contender, Load, RunError
from l0prune.storage import PROBE
from l0prune.support import check_stamp, python
from l0prune_speech.data import SAMPLE_RATE, Framing
from l0prune_speech.deploy.inference import for_inference
from l0prune_speech.formats import from_encoder, load_teacher, to_onnx
from l0prune_speech.options import PACKAGES

_CHILD_SECONDS = 10
_CHILD = """
import ctypes, gc, json, sys, time
from pathlib import Path
import torch
from l0prune_speech.formats import load_teacher

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

def seconds_to_load():
    begun = time.perf_counter()
    encoder = load_teacher(sys.argv[1]).encoder
    loaded = time.perf_counter() - begun
    with torch.inference_mode():
        encoder(torch.zeros(1, int(sys.argv[3])))
    return loaded

torch.set_num_threads(int(sys.argv[2]))
# What the libraries import at their first use, which depends on the file's format, is no cost of the network's.
seconds_to_load()
gc.collect()
if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
    ctypes.CDLL(None).malloc_trim(0)
before = memory(reset=True)
print(json.dumps({"load_seconds": seconds_to_load(), "peak_memory_bytes": memory() - before}))
"""


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
        return Contender(onnx=lambda: path, facts={"file_bytes": path.stat().st_size})
    encoder = load_teacher(source).encoder
    checkpoint = from_encoder(encoder)
    framing = Framing.of_convolutions(checkpoint.config["extractor_conv_layer_config"])
    facts = {
        "file_bytes": _size(path),
        "shortest_seconds": framing.shortest_samples / SAMPLE_RATE,
        **_in_a_fresh_process(source),
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


def _in_a_fresh_process(source: str) -> dict[str, Any]:
    """Seconds to load, and the most memory that loading and 10 s of audio take beyond the libraries."""
    arguments = [source, str(torch.get_num_threads()), str(_CHILD_SECONDS * SAMPLE_RATE)]
    command = python("-W", "ignore", "-c", _CHILD, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(
            "cannot load the model in a fresh process", where=source, got=done.stderr.strip().splitlines()[-1:]
        )
    return json.loads(done.stdout)
