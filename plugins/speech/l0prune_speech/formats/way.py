"""How a format is written, and opened again as its users would.

Legend: B batch, T frames, D residual width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.formats.checkpoint import Checkpoint

Outputs = Sequence[Tensor]
Run = Callable[[Tensor, Tensor], Outputs]
"""waveforms (B, samples), lengths (B,) -> hidden states (B, T, D)."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a format is written and opened."""

    write: Callable[[Checkpoint, Path, str], list[str]]
    """Checkpoint, path, model card -> notes."""
    open: Callable[[Path], Run]
    """Runs what was written, as its users would."""
    expected: Callable[[SpeechEncoder, Tensor, Tensor], Outputs]
    """The same outputs of the network itself."""
    tolerance: float = 1e-5
    refusal: Callable[[Checkpoint], str | None] = lambda _checkpoint: None
    """Why the format cannot hold a network, if it cannot."""


def _hidden_states(encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Outputs:
    return encoder.hidden_states(waveforms, None, lengths)


def plain_way(write: Callable[[Checkpoint, Path], list[str]], run: Callable[[Path], Run]) -> Way:
    """A way without a model card, that gives hidden states back.

    Args:
        write: Writes a checkpoint to a path, returns notes.
        run: Opens what was written.
    """
    return Way(write=lambda checkpoint, path, card: write(checkpoint, path), open=run, expected=_hidden_states)
