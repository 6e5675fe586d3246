"""Distillation objectives: layer matched (the paper's eq. 1) and prediction layers (DistilHuBERT's).

Legend: B batch, T frames, D student width, E teacher width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from l0prune import ConfigError, Losses, Objective
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.distillation.targets import TargetCache, Targets
from l0prune_speech.distillation.terms import check_weights, distance
from l0prune_speech.encoder import SpeechEncoder

PUBLISHED: Mapping[str, float] = {"l1": 1.0, "cosine": 1.0}
"""Weights of the terms of DPHuBERT's eq. 1."""


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
        weights: Of the terms, by name (`all_terms()`).
        cache: Keeps the teacher's hidden states on disk.
    """

    def __init__(
        self,
        student: SpeechEncoder,
        teacher: SpeechEncoder,
        *,
        layers: Sequence[int],
        mode: str = "layers",
        weights: Mapping[str, float] = PUBLISHED,
        cache: TargetCache | None = None,
    ) -> None:
        super().__init__(student)
        # No module: hidden from `parameters()`, `train()` and checkpoints.
        self.targets = Targets(teacher, layers, cache)
        check_weights(weights)
        self.layers, self.mode, self.weights = tuple(layers), mode, dict(weights)
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
            f"layer {layer}": distance(
                self._own(states, layer), self._predict(states, layer), targets[layer], self.weights
            )
            for layer in self.layers
        }
        total = torch.stack(list(parts.values())).mean()
        return Losses(total=total, parts=parts, amount=waveforms.numel() / SAMPLE_RATE)

    def _own(self, states: Sequence[Tensor], layer: int) -> Tensor:
        """The student's state that is compared with the teacher's of a layer."""
        return states[-1 if self.mode == "prediction" else layer]

    def _predict(self, states: Sequence[Tensor], layer: int) -> Tensor:
        if self.mode == "prediction":
            return self.projections[str(layer)](self._own(states, layer))
        return self.projections["first" if layer == 0 else "others"](self._own(states, layer))


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
