"""Distillation of a network with its head: hidden states, logits and the task's own loss.

Legend: B clips, T frames, D width, M frames that are not padding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import Losses, Objective
from l0prune_speech.data import PieceBatch
from l0prune_speech.distillation.terms import check_between, check_weights, distance
from l0prune_speech.families import Answer, Heard, SpeechNetwork


@dataclass(frozen=True, kw_only=True)
class TaskWeights:
    """What is added up, and how much of each."""

    layers: float = 1.0
    logits: float = 0.0
    task: float = 0.5
    temperature: float = 2.0


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What the teacher says of a batch."""

    answers: tuple[Answer, ...] | None
    heard: Heard | None

    @property
    def bytes(self) -> int:
        if self.heard is None:
            return 0
        tensors = (*self.heard.states, self.heard.frames, self.heard.logits, self.heard.counted)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


class TaskDistillation(Objective):
    """A student against its frozen teacher and the labels of its task.

    Args:
        student: The network to train, a copy of the teacher's model.
        teacher: The network that it begins as; its `model` is frozen.
        layers: Hidden states to match, by number; 0 is the input of the first layer.
        weights: Of the three parts.
        distances: Weights of the terms between hidden states, by name (`all_terms()`).
        most_bytes: Memory for what the teacher says of batches that come again.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: SpeechNetwork,
        *,
        layers: Sequence[int],
        weights: TaskWeights,
        distances: Mapping[str, float],
        most_bytes: int,
    ) -> None:
        super().__init__(student)
        # Not a module of its own: hidden from `parameters()`, `train()` and checkpoints.
        self.teacher, self.layers = teacher, tuple(layers)
        check_weights(distances)
        hint = "use a term between hidden states; others are for encoders of torchaudio's layout"
        check_between(distances, ["states", "logits"] if teacher.task != "distill" else ["states"], hint=hint)
        self.weights, self.distances = weights, dict(distances)
        self._kept: dict[Any, _Said] = {}
        self._room = most_bytes

    def forward(self, batch: PieceBatch) -> Losses:
        """Losses of a batch, and its parts by name."""
        device = next(self.student.parameters()).device
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.inputs.items()}
        said = self._said(batch, inputs)
        asked = said.answers if self.weights.logits or self.weights.task else None
        heard = self.teacher.hear(self.student, inputs, asked)
        parts: dict[str, Tensor] = {}
        total = heard.states[-1].new_zeros((), dtype=torch.float32)
        if said.heard is not None and self.weights.layers:
            states = {
                f"layer {layer}": state_distance(heard.states[layer], target, heard.frames, self.distances)
                for layer, target in zip(self.layers, said.heard.states, strict=True)
            }
            parts |= states
            total = total + self.weights.layers * torch.stack(list(states.values())).mean()
        if said.heard is not None and self.weights.logits and said.heard.logits is not None:
            parts["logits"] = self.teacher.match(heard, said.heard, self.weights.temperature)
            total = total + self.weights.logits * parts["logits"]
        if said.answers is not None and self.weights.task:
            parts["task"] = self.teacher.loss(self.student, heard, said.answers)
            total = total + self.weights.task * parts["task"]
        return Losses(total=total, parts=parts, amount=batch.seconds)

    @torch.no_grad()
    def _said(self, batch: PieceBatch, inputs: Mapping[str, Tensor]) -> _Said:
        device = next(iter(inputs.values())).device
        # Without autocast, in evaluation, it says the same in other digits.
        key = (batch.name, torch.is_autocast_enabled(device.type))
        if key in self._kept:
            return _on(self._kept[key], device)
        model, answers = self.teacher.model, batch.answers
        if answers is None and self.teacher.task != "distill":
            answers = tuple(self.teacher.answers(model, inputs, batch.longest_seconds))
        heard = None
        if self.weights.layers or self.weights.logits:
            # Without logits to match a decoder need not speak.
            heard = self.teacher.hear(model, inputs, answers if self.weights.logits else None)
            states = tuple(heard.states[layer] for layer in self.layers) if self.weights.layers else ()
            logits = (heard.logits, heard.counted) if self.weights.logits else (None, None)
            heard = replace(heard, states=states, logits=logits[0], counted=logits[1])
        said = _Said(answers=answers, heard=heard)
        if said.bytes <= self._room:
            self._room -= said.bytes
            self._kept[key] = _on(said, torch.device("cpu"))
        return said


def _on(said: _Said, device: torch.device) -> _Said:
    if said.heard is None:
        return said

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    states = tuple(state.to(device, non_blocking=True) for state in said.heard.states)
    heard = Heard(
        states=states,
        frames=said.heard.frames.to(device),
        logits=moved(said.heard.logits),
        counted=moved(said.heard.counted),
    )
    return replace(said, heard=heard)


def state_distance(student: Tensor, teacher: Tensor, frames: Tensor, weights: Mapping[str, float]) -> Tensor:
    """Terms between two hidden states (B, T, D), over the frames (B, T) that are not padding.

    Both are divided by the mean magnitude of the teacher's, because states of different networks differ by orders of
    magnitude: L1 is relative, and the cosine is what it was.
    """
    if frames.shape[1] != student.shape[1]:
        valid = (frames.sum(1) * student.shape[1] / frames.shape[1]).ceil()
        frames = torch.arange(student.shape[1], device=frames.device) < valid[:, None]
    student, teacher = student.float(), teacher.float()
    heard = teacher if bool(frames.all()) else teacher[frames]
    scale = heard.abs().mean().clamp_min(torch.finfo(torch.float32).tiny)
    student = student / scale
    return distance(student, student, teacher / scale, weights, frames)
