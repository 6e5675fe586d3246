"""Distillation objectives: layer matched (the paper's eq. 1) and prediction layers (DistilHuBERT's).

Legend: B batch, T frames, D student width, E teacher width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from l0prune import ConfigError, Losses, Objective
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.distillation.targets import TargetCache, Targets
from l0prune_speech.encoder import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class DistanceWeights:
    """Weights of the distances between a student's and a teacher's hidden state."""

    l1: float = 1.0
    l2: float = 0.0
    cosine: float = 1.0
    cosine_form: str = "linear"
    """ "linear" for 1 - cos, "log_sigmoid" for -log sigmoid(cos) (DistilHuBERT)."""

    def __post_init__(self) -> None:
        if self.cosine_form not in ("linear", "log_sigmoid"):
            raise ConfigError("unknown cosine form", got=self.cosine_form, expected="linear or log_sigmoid")
        if min(self.l1, self.l2, self.cosine) < 0 or self.l1 + self.l2 + self.cosine == 0:
            got = (self.l1, self.l2, self.cosine)
            raise ConfigError("distance weights out of range", got=got, expected="none negative, one positive")


def distance(student: Tensor, teacher: Tensor, weights: DistanceWeights) -> Tensor:
    """Distance of two hidden states (B, T, E), averaged over batch, frames and, for L1 and L2, features.

    Source: DPHuBERT (arXiv 2305.17651), eq. 1; 1 - cos instead of -cos, so that 0 is a perfect match.
    """
    # In float32 at least.
    student, teacher = (state.to(torch.promote_types(state.dtype, torch.float32)) for state in (student, teacher))
    total = student.new_zeros(())
    if weights.l1:
        total = total + weights.l1 * nn.functional.l1_loss(student, teacher)
    if weights.l2:
        total = total + weights.l2 * nn.functional.mse_loss(student, teacher)
    if weights.cosine:
        cosine = nn.functional.cosine_similarity(student, teacher, dim=-1)
        form = 1 - cosine if weights.cosine_form == "linear" else -nn.functional.logsigmoid(cosine)
        total = total + weights.cosine * form.mean()
    return total


def matched_layers(depth: int) -> tuple[int, ...]:
    """Layer 0 and three evenly spaced ones: 0, 4, 8, 12 of 12; 0, 8, 16, 24 of 24."""
    return tuple(sorted({round(depth * third / 3) for third in range(4)}))


class Distillation(Objective):
    """Student against frozen teacher at matched layers.

    Args:
        student: The network to train.
        teacher: Frozen; in evaluation mode.
        layers: Teacher layers to match; 0 is the projected CNN output.
        mode: "layers" compares each with the student's own layer; "prediction" predicts all from the student's last.
        weights: Of the distances.
        cache: Keeps the teacher's hidden states on disk.
    """

    def __init__(
        self,
        student: SpeechEncoder,
        teacher: SpeechEncoder,
        *,
        layers: Sequence[int],
        mode: str = "layers",
        weights: DistanceWeights | None = None,
        cache: TargetCache | None = None,
    ) -> None:
        super().__init__(student)
        # No module: hidden from `parameters()`, `train()` and checkpoints.
        self.targets = Targets(teacher, layers, cache)
        self.layers, self.mode, self.weights = tuple(layers), mode, weights or DistanceWeights()
        own, theirs = _width(student), _width(teacher)
        if mode == "layers":
            # One projection for layer 0 and one shared by the others, as published; both begin as the identity.
            names = ("first", "others") if 0 in self.layers else ("others",)
            self.projections = nn.ModuleDict({name: _identity(own, theirs) for name in names})
        elif mode == "prediction":
            heads = {str(layer): nn.Sequential(nn.Linear(own, theirs), nn.GELU()) for layer in self.layers}
            self.projections = nn.ModuleDict(heads)
        else:
            raise ConfigError("unknown distillation mode", got=mode, expected="layers or prediction")

    def forward(self, batch: Tensor) -> Losses:
        """batch: waveforms (B, samples) -> the mean over the matched layers, and each of them."""
        device = next(self.projections.parameters()).device
        waveforms = batch.to(device, non_blocking=True)
        targets = self.targets(batch, waveforms)
        student: SpeechEncoder = self.student  # type: ignore[assignment]
        states = student.hidden_states(waveforms, max(self.layers) if self.mode == "layers" else None)
        parts = {
            f"layer {layer}": distance(self._predict(states, layer), targets[layer], self.weights)
            for layer in self.layers
        }
        total = torch.stack(list(parts.values())).mean()
        return Losses(total=total, parts=parts, amount=waveforms.numel() / SAMPLE_RATE)

    def _predict(self, states: Sequence[Tensor], layer: int) -> Tensor:
        if self.mode == "prediction":
            return self.projections[str(layer)](states[-1])
        return self.projections["first" if layer == 0 else "others"](states[layer])


def set_dropout(student: SpeechEncoder, *, dropout: bool, layer_drop: float) -> None:
    """Keep or switch off every dropout of the student, and set its layer drop.

    The published code keeps the teacher's dropout rates; its layer drop never acts, because features are extracted
    layer by layer.
    """
    if not dropout:
        for module in student.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0  # type: ignore[assignment]
    student.encoder.transformer.layer_drop = layer_drop  # type: ignore[assignment]


def _width(encoder: SpeechEncoder) -> int:
    return encoder.encoder.feature_projection.projection.out_features  # type: ignore[union-attr, return-value]


def _identity(own: int, theirs: int) -> nn.Linear:
    linear = nn.Linear(own, theirs)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
