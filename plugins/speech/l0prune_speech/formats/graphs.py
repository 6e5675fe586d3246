"""Programs without Python classes: ONNX, torch.export and TorchScript. Batch and length stay free.

All three take `waveforms` (B, samples) and `lengths` (B,), and give `last_hidden_state` (B, T, D), `hidden_states`
(1 + L, B, T, D) numbered as DPHuBERT does, and `frames` (B,), the valid ones.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import ConfigError
from l0prune.support import STAMP, stamp
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.formats.checkpoint import Checkpoint, folded
from l0prune_speech.formats.way import Outputs, Run, Way

OPSET = 18
"""The first with GroupNorm's present form, and what the exporter writes without conversion."""
LARGEST_ONNX = 2**31 - 1
"""Bytes of a file in protobuf's format, which ONNX is."""
_GRAPH_BYTES = 2**24
"""Room for the graph beside its weights: it takes 0.1 MB a layer."""
INPUTS, OUTPUTS = ("waveforms", "lengths"), ("last_hidden_state", "hidden_states", "frames")
_EXAMPLE_SECONDS = (1.0, 0.8)


class Program(nn.Module):
    """What is exported: every hidden state of an encoder, with weight normalisation folded in.

    Args:
        checkpoint: The encoder, dense or pruned.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.encoder = folded(checkpoint)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """waveforms: (B, samples), lengths: (B,) -> last hidden state, hidden states, frames."""
        encoder: Any = self.encoder
        features, frames = encoder.feature_extractor(encoder.normalize(waveforms, lengths), lengths)
        x, mask = encoder.encoder._preprocess(features, frames)
        states = [x, *encoder.encoder.transformer.get_intermediate_outputs(x, mask)]
        transformer = encoder.encoder.transformer
        last = states[-1] if transformer.layer_norm_first else transformer.layer_norm(states[-1])
        return last, torch.stack(states), frames


def _example() -> tuple[Tensor, Tensor]:
    """Waveforms (2, samples) and their lengths (2,)."""
    lengths = torch.tensor([round(seconds * SAMPLE_RATE) for seconds in _EXAMPLE_SECONDS])
    return torch.randn(2, int(lengths.max()), generator=torch.Generator().manual_seed(0)), lengths


def to_torchscript(checkpoint: Checkpoint, path: Path) -> list[str]:
    """Write a TorchScript program, for `torch.jit.load` in Python or C++."""
    with torch.no_grad(), warnings.catch_warnings():
        # Shapes are compared while tracing; that they stay free is checked at other lengths afterwards.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Program(checkpoint), _example(), check_trace=False)
        torch.jit.save(traced, str(path))
    return []


def to_torch_export(checkpoint: Checkpoint, path: Path) -> list[str]:
    """Write a program of `torch.export`, for `torch.export.load`."""
    torch.export.save(_exported(checkpoint), path)
    return []


def to_onnx(checkpoint: Checkpoint, path: Path) -> list[str]:
    """Write an ONNX model.

    Raises:
        ConfigError: The packages that write and check it are missing.
    """
    check_onnx()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Program(checkpoint),
            _example(),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=_dynamic_shapes(),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    # Room for the checksum of the file, which follows when it is whole.
    program.model.metadata_props[STAMP] = "0" * 64
    program.save(str(path), external_data=False)
    stamp(path)
    return [f"opset {OPSET}"]


def too_large_for_onnx(checkpoint: Checkpoint) -> str | None:
    """Why an ONNX file cannot hold a network, if it cannot."""
    size = sum(tensor.numel() * 4 for tensor in checkpoint.tensors.values())
    if size <= LARGEST_ONNX - _GRAPH_BYTES:
        return None
    return f"{size / 1e9:.2f} GB of weights, where an ONNX file ends at {LARGEST_ONNX / 1e9:.2f} GB"


def check_onnx() -> None:
    """Raise a `ConfigError` where onnx, onnxscript or onnxruntime is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        hint = "pip install 'l0prune[onnx]'"
        raise ConfigError("ONNX export needs onnx, onnxscript and onnxruntime", got=error, hint=hint) from error


def _exported(checkpoint: Checkpoint) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(Program(checkpoint), _example(), dynamic_shapes=_dynamic_shapes())


def _dynamic_shapes() -> dict[str, Any]:
    batch, samples = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    return {"waveforms": {0: batch, 1: samples}, "lengths": {0: batch}}


def run_torchscript(path: Path) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """A function that runs the program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.load(str(path), map_location="cpu")
    return lambda waveforms, lengths: list(program(waveforms, lengths))


def run_torch_export(path: Path) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """A function that runs the program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(path).module()
    return lambda waveforms, lengths: list(program(waveforms, lengths))


def run_onnx(path: Path) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """A function that runs the model in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        feeds = dict(zip(INPUTS, (waveforms.numpy(), lengths.numpy()), strict=True))
        return [torch.from_numpy(array) for array in session.run(list(OUTPUTS), feeds)]

    return run


def _program_outputs(encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Outputs:
    last, frames = encoder(waveforms, lengths)
    return [last, torch.stack(encoder.hidden_states(waveforms, None, lengths)), frames.double()]


def _graph(write: Callable[[Checkpoint, Path], list[str]], run: Callable[[Path], Run], **more: Any) -> Way:
    def opened(path: Path) -> Run:
        program = run(path)

        def outputs(waveforms: Tensor, lengths: Tensor) -> Outputs:
            last, states, frames = program(waveforms, lengths)
            # Counts are compared too, as numbers with fractions are.
            return [last, states, frames.double()]

        return outputs

    return Way(
        write=lambda checkpoint, path, card: write(checkpoint, path),
        open=opened,
        expected=_program_outputs,
        **more,
    )


def torchscript_way() -> Way:
    """TorchScript."""
    return _graph(to_torchscript, run_torchscript)


def torch_export_way() -> Way:
    """torch.export."""
    return _graph(to_torch_export, run_torch_export)


def onnx_way() -> Way:
    """ONNX.

    Raises:
        ConfigError: A package is missing.
    """
    check_onnx()
    return _graph(to_onnx, run_onnx, tolerance=1e-4, refusal=too_large_for_onnx)
