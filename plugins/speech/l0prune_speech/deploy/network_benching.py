"""Networks with a class of their own, and their exports, as they are measured: heard, and said by greedy decoding.

Feature extraction is not timed: it is the same for all. A decoder says as many tokens as speech of that length has.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import Contender, Load
from l0prune.measuring import Variant
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.deploy.networks import OnnxRunner, form_named, is_export, open_export, opened_network
from l0prune_speech.families import SpeechNetwork, generated, tokens_of

_EAGER = frozenset({("float32", "eager"), ("bfloat16", "eager"), ("int8", "eager")})
_ONNX = frozenset({("float32", "onnxruntime"), ("int8", "onnxruntime")})
_WEIGHTS = (".bin", ".onnx", ".pt2", ".safetensors")


def own_contender(source: str, workspace: Path) -> Contender:
    """A network with a class of its own, or an export of one, ready to be measured.

    Args:
        source: A run, a checkpoint, or a folder of exported programs.
        workspace: A folder for what is made on the way.

    Raises:
        L0PruneError: The source cannot be read.
    """
    network, folder = opened_network(source), Path(source)
    exported = is_export(source)
    has_onnx = exported and any(folder.glob("*.onnx"))

    def onnx() -> Path:
        if has_onnx:
            return folder
        made = workspace / "onnx"
        if not made.exists():
            made.mkdir()
            form = form_named("onnx")
            form.needs()
            form.write(network, made)
        return made

    def variant(dtype: str, backend: str, device: torch.device, threads: int) -> Variant:
        if backend != "onnxruntime":
            return _timed(
                network, network.model if exported else _in_dtype(network.model, dtype, device), dtype, device
            )
        place = onnx()
        runner = OnnxRunner(place, threads=threads, int8=workspace if dtype == "int8" else None)
        opened = open_export(place, runner)
        return _timed(opened, opened.model, "float32", torch.device("cpu"))

    variants = _ONNX if has_onnx else frozenset({("float32", "eager")}) if exported else _EAGER | _ONNX
    facts: dict[str, Any] = {"file_bytes": _size(folder), "longest_seconds": network.longest_seconds}
    if exported:
        facts["parameters"] = network.parameters
    return Contender(
        counted=None if exported else _Spoken(network),
        variant=variant,
        variants=variants,
        facts=facts,
        packages=("transformers",),
    )


class _Spoken(nn.Module):
    """What is counted: waveforms in, everything that is timed done.

    Args:
        network: The network.
    """

    def __init__(self, network: SpeechNetwork) -> None:
        super().__init__()
        self.model, self._network = network.model, (network,)

    def forward(self, waveforms: Tensor) -> object:
        """waveforms: (B, samples) -> whatever the network says."""
        network, device = self._network[0], waveforms.device
        inputs = {name: tensor.to(device) for name, tensor in network.inputs(list(waveforms.cpu())).items()}
        return _run(network, self.model, inputs, waveforms.shape[1] / SAMPLE_RATE)()


def _in_dtype(model: nn.Module, dtype: str, device: torch.device) -> nn.Module:
    model = copy.deepcopy(model).eval().requires_grad_(False).to(device)
    if dtype == "bfloat16":
        return model.to(torch.bfloat16)
    if dtype == "int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return model


def _timed(network: SpeechNetwork, model: nn.Module, dtype: str, device: torch.device) -> Variant:
    wanted = torch.bfloat16 if dtype == "bfloat16" else None

    def prepare(load: Load) -> Callable[[], object]:
        (waveforms,) = load.inputs
        inputs = {
            name: tensor.to(device, wanted if tensor.is_floating_point() else None)
            for name, tensor in network.inputs(list(waveforms)).items()
        }
        run = _run(network, model, inputs, waveforms.shape[1] / SAMPLE_RATE)

        def timed() -> object:
            with torch.inference_mode():
                return run()

        return timed

    return prepare


def _run(
    network: SpeechNetwork, model: nn.Module, inputs: Mapping[str, Tensor], seconds: float
) -> Callable[[], object]:
    if network.task != "seq2seq":
        return lambda: network.hear(model, inputs)
    given = {name: tensor for name, tensor in inputs.items() if name != "lengths"}
    count = tokens_of(seconds)
    return lambda: generated(model, given, max_new_tokens=count, min_new_tokens=count)


def _size(folder: Path) -> int | None:
    """Bytes of the weights in a folder."""
    if not folder.is_dir():
        return None
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS) or None
