"""A pre-training run: what is held out, the steps, and a checkpoint from which a stopped run goes on.

Legend: B crops, T frames, S samples.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0bench.teacher.corpus import Clip, crop, repeated, streams
from l0bench.teacher.masked_prediction import MaskedPredictor, masked_spans, unit_accuracies, unit_losses
from l0prune import write_atomic

Cut = Callable[[Sequence[Clip], int, np.random.Generator], tuple[Tensor, dict[str, Tensor]]]
UNMASKED_WEIGHT = 0.3
FEATURE_PENALTY = 0.01  # fairseq's 10 presses the convolutions to zero at this batch size: nothing is learnt
KEPT_EVERY = 100
_HELD_OUT_CROPS, _AT_ONCE = 96, 8
_MANY = 100
"""Clips of a speaker, from which on some are held out in place of the speaker."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long and on what."""

    steps: int
    batch: int
    """Crops a step."""
    frames: int
    """Of a crop, 50 a second."""
    masked: float
    """Spans times their length by the frames."""
    repeated: float
    """Share of crops whose second half is the first, through another channel."""
    learning_rate: float
    """At its peak, after a twelfth of the steps."""
    every: int
    """Steps between evaluations."""
    seed: int


def held_out(clips: Sequence[Clip]) -> list[bool]:
    """Of each clip, whether it is never trained on: each tenth of a speaker with many, and each tenth other speaker."""
    counts: dict[str, int] = {}
    for clip in clips:
        counts[clip.speaker] = counts.get(clip.speaker, 0) + 1
    few = [speaker for speaker, count in counts.items() if count < _MANY]
    unseen = {few[i] for i in np.random.default_rng(0).permutation(len(few))[: len(few) // 10]}
    return [c.speaker in unseen or (counts[c.speaker] >= _MANY and i % 10 == 0) for i, c in enumerate(clips)]


def stacked(crops: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Waveforms (B, S), and units (B, T) of each source."""
    units = {name: torch.stack([found[name] for _, found in crops]) for name in crops[0][1]}
    return torch.stack([waveform for waveform, _ in crops]), units


class HeldOut:
    """Fixed crops and masks of what is held out.

    Args:
        clips: Never trained on.
        settings: The run's.
        cut: `corpus.crop`, or `corpus.repeated`.
    """

    def __init__(self, clips: Sequence[Clip], settings: Settings, cut: Cut = crop) -> None:
        frames, generator = settings.frames, np.random.default_rng(1)
        rows = streams(clips, frames, generator)
        chosen = [rows[i] for i in generator.permutation(len(rows))[:_HELD_OUT_CROPS]]
        self._batches = []
        for begin in range(0, len(chosen), _AT_ONCE):
            waveforms, units = stacked([cut(row, frames, generator) for row in chosen[begin : begin + _AT_ONCE]])
            spans = masked_spans(len(waveforms), frames, settings.masked, torch.Generator().manual_seed(begin))
            self._batches.append((waveforms, units, spans))

    @torch.no_grad()
    def measure(self, model: MaskedPredictor) -> dict[str, float]:
        """Mean loss of masked frames in nats, and the share of them that is predicted, for each source of units."""
        model.eval()
        rows = []
        for waveforms, units, spans in self._batches:
            with torch.autocast("cpu", torch.bfloat16):
                logits, _ = model(waveforms, spans)
            losses = {f"loss of {k}": float(v) for k, v in unit_losses(logits, units, spans).items()}
            rows.append(losses | {f"accuracy of {k}": v for k, v in unit_accuracies(logits, units, spans).items()})
        model.train()
        return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}

    def loss(self, model: MaskedPredictor) -> float:
        """The masked losses' sum."""
        return sum(value for key, value in self.measure(model).items() if key.startswith("loss"))


class Pretraining:
    """A run that keeps what it needs to go on.

    Args:
        model: Trained in place.
        clips: To train on.
        test: What is measured on.
        settings: How long and on what.
        checkpoint: The file; a run that left it goes on.
    """

    def __init__(
        self, model: MaskedPredictor, clips: Sequence[Clip], test: HeldOut, settings: Settings, checkpoint: Path
    ) -> None:
        self.model, self._test, self._settings, self._checkpoint = model, test, settings, checkpoint
        self._rows = streams(clips, settings.frames, np.random.default_rng(settings.seed))
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._share_of_rate)
        self._step, self._seconds = 0, 0.0
        self.curve: list[dict[str, Any]] = []
        if checkpoint.exists():
            self._load()

    def _share_of_rate(self, step: int) -> float:
        steps = self._settings.steps
        warmup = max(1, steps // 12)
        return min((step + 1) / warmup, max(0.02, (steps - step) / (steps - warmup)))

    def run(self) -> None:
        """All steps that are left."""
        losses: list[float] = []
        began, spent = time.perf_counter(), self._seconds
        last = self._settings.steps
        while self._step < last:
            self._step += 1
            losses.append(self._learn(self._step))
            self._seconds = spent + time.perf_counter() - began
            if self._step % self._settings.every == 0 or self._step == last:
                measured = {"step": self._step, "loss": round(float(np.mean(losses)), 4)}
                self.curve.append(measured | {"seconds": round(self._seconds)} | self._test.measure(self.model))
                losses.clear()
                print(self.curve[-1], flush=True)
            if self._step % KEPT_EVERY == 0 or self._step == last:
                self._save()

    def _learn(self, step: int) -> float:
        """One step; what it draws depends on its number alone, so a run that was stopped draws the same."""
        settings = self._settings
        whole = len(self._rows) - len(self._rows) % settings.batch
        epoch, place = divmod((step - 1) * settings.batch, whole)
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(self._rows))
        generator = np.random.default_rng((settings.seed, 1, step))
        torch.manual_seed(step)
        chosen = [self._rows[i] for i in order[place : place + settings.batch]]
        cuts = [repeated if generator.random() < settings.repeated else crop for _ in chosen]
        waveforms, units = stacked(
            [cut(row, settings.frames, generator) for cut, row in zip(cuts, chosen, strict=True)]
        )
        spans = masked_spans(
            len(waveforms), settings.frames, settings.masked, torch.Generator().manual_seed(settings.seed + step)
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits, penalty = self.model(waveforms, spans)
        masked, heard = _total(unit_losses(logits, units, spans)), _total(unit_losses(logits, units, ~spans))
        (masked + UNMASKED_WEIGHT * heard + FEATURE_PENALTY * penalty).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        return float(masked.detach())

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "step": self._step,
            "seconds": self._seconds,
            "curve": self.curve,
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._checkpoint, partial(torch.save, state))

    def _load(self) -> None:
        kept = torch.load(self._checkpoint, weights_only=True)
        self.model.load_state_dict(kept["model"])
        self._optimizer.load_state_dict(kept["optimizer"])
        self._schedule.load_state_dict(kept["schedule"])
        self._step, self._seconds, self.curve = kept["step"], kept["seconds"], kept["curve"]
        print(f"goes on after step {self._step}", flush=True)


def _total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([*losses.values()]).sum()
