"""What programs without Python classes compute: ONNX, torch.export and TorchScript. Batch and length stay free.

All three take `waveforms` (B, samples) and `lengths` (B,), and give `last_hidden_state` (B, T, D), `hidden_states`
(1 + L, B, T, D) numbered as DPHuBERT does, and `frames` (B,), the valid ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.formats.checkpoint import Checkpoint, folded
from l0prune_speech.formats.registry import Outputs, Run

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


def example() -> tuple[Tensor, Tensor]:
    """Waveforms (2, samples) and their lengths (2,)."""
    lengths = torch.tensor([round(seconds * SAMPLE_RATE) for seconds in _EXAMPLE_SECONDS])
    return torch.randn(2, int(lengths.max()), generator=torch.Generator().manual_seed(0)), lengths


def dynamic_shapes() -> dict[str, Any]:
    """The dimensions that stay free, for torch's exporters."""
    batch, samples = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    return {"waveforms": {0: batch, 1: samples}, "lengths": {0: batch}}


def program_outputs(encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Outputs:
    """What a program gives, by the encoder itself: last hidden state, hidden states, frames as numbers."""
    last, frames = encoder(waveforms, lengths)
    return [last, torch.stack(encoder.hidden_states(waveforms, None, lengths)), frames.double()]


def opened(run: Callable[[Path], Run]) -> Callable[[Path], Run]:
    """What opens a program for the comparison with `program_outputs`.

    Args:
        run: Makes of a file what computes the program's three outputs.
    """

    def open_program(path: Path) -> Run:
        program = run(path)

        def outputs(waveforms: Tensor, lengths: Tensor) -> Outputs:
            last, states, frames = program(waveforms, lengths)
            # Counts are compared too, as numbers with fractions are.
            return [last, states, frames.double()]

        return outputs

    return open_program
