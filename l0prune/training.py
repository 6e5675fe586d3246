"""One training loop for both stages: joint distillation and pruning, then further distillation."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.checkpoint import random_state, restore_random_state
from l0prune.config import ControllerConfig, StageConfig
from l0prune.controller import AugmentedLagrangian
from l0prune.counting import has_fast_bfloat16
from l0prune.errors import TrainingError
from l0prune.gating import GatedModel

_MAX_BAD_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What an objective returns for a batch."""

    total: Tensor
    """Scalar to minimise."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars to report, by name."""
    amount: float = 1.0
    """How much data the batch holds, in the task's unit (seconds of audio, examples)."""


class Objective(nn.Module):
    """What is minimised: its parameters are trained, `student` among them is pruned.

    Args:
        student: The network to prune.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    @abstractmethod
    def forward(self, batch: Any) -> Losses:
        """Losses of one batch."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One logging step, averaged over the steps since the last."""

    stage: str
    step: int
    steps: int
    loss: float
    parts: dict[str, float]
    learning_rate: float
    gradient_norm: float
    amount_per_second: float
    step_seconds: float
    seconds_left: float
    skipped_steps: int
    sparsity: float | None = None
    target: float | None = None
    multipliers: tuple[float, float] | None = None


class Stage:
    """A training stage: all of its state, and the loop.

    Args:
        name: "joint" or "further".
        objective: What is minimised.
        config: Steps and rates.
        precision: "auto", "float32" or "bfloat16".
        gated: The gated student in the joint stage.
        controller: Settings of its augmented Lagrangian.
    """

    def __init__(
        self,
        name: str,
        objective: Objective,
        config: StageConfig,
        *,
        precision: str = "auto",
        gated: GatedModel | None = None,
        controller: ControllerConfig | None = None,
    ) -> None:
        self.name, self.objective, self.config, self.gated = name, objective, config, gated
        weights = [p for p in objective.parameters() if p.requires_grad]
        self.device = weights[0].device
        self.weights = weights
        groups: list[dict[str, Any]] = [
            {"params": weights, "lr": config.learning_rate, "weight_decay": config.weight_decay}
        ]
        self.lagrangian: AugmentedLagrangian | None = None
        if gated is not None:
            settings = controller or ControllerConfig()
            self.lagrangian = AugmentedLagrangian(
                gated.target_sparsity, settings.warmup_steps, settings.quadratic_start
            ).to(self.device)
            own = {"lr": settings.learning_rate, "weight_decay": 0.0}
            groups.append({"params": [gated.gates.log_alpha], **own})
            groups.append({"params": [self.lagrangian.multipliers], **own})
        self.optimizer = torch.optim.AdamW(groups, fused=self.device.type in ("cpu", "cuda"))
        use_bfloat16 = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(self.device))
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=use_bfloat16)
        self.step = 0
        self.seconds = 0.0
        self.skipped_steps = 0
        self._bad_in_a_row = 0

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then linear decay that would reach 0 after the last step."""
        warmup, steps = self.config.warmup_steps, self.config.steps
        rise = (step + 1) / warmup if step < warmup else 1.0
        fall = (steps - step) / (steps - warmup) if step >= warmup else 1.0
        return self.config.learning_rate * rise * fall

    def run(
        self,
        batches: Iterator[Any],
        *,
        log_every: int,
        on_record: Callable[[Record], None],
        after_step: Callable[[], None],
    ) -> None:
        """Train to the end of the stage.

        Args:
            batches: Batches from the stage's current step on.
            log_every: Steps between records.
            on_record: Takes each record.
            after_step: Called after each step; may save the state, or raise to stop.

        Raises:
            TrainingError: The data ended, or losses stayed non-finite for too many steps in a row.
        """
        self.objective.train()
        meter = _Meter()
        while self.step < self.config.steps:
            began = time.perf_counter()
            losses, norm = self.update(batches)
            self.step += 1
            elapsed = time.perf_counter() - began
            self.seconds += elapsed
            meter.add(losses, norm, elapsed)
            if self.step % log_every == 0 or self.step in (1, self.config.steps):
                on_record(self._record(meter))
                meter = _Meter()
            after_step()

    def update(self, batches: Iterator[Any]) -> tuple[list[Losses], Tensor]:
        """One optimizer step; a non-finite one leaves everything as it was.

        Args:
            batches: Gives the step's micro-batches.

        Returns:
            Losses of the micro-batches, and the norm of the gradient before clipping.

        Raises:
            TrainingError: The data ended, or this was one non-finite step too many.
        """
        self.optimizer.param_groups[0]["lr"] = self.learning_rate_at(self.step)
        all_losses = [self._backward(batches) for _ in range(self.config.micro_batches)]
        if self.gated is not None and self.lagrangian is not None:
            self.lagrangian.penalty(self.gated.expected_sparsity(), self.step).backward()
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.max_gradient_norm)
        if bool(torch.isfinite(norm)) and all(bool(torch.isfinite(losses.total)) for losses in all_losses):
            self.optimizer.step()
            self._bad_in_a_row = 0
        else:
            self._skip()
        self.optimizer.zero_grad()
        return all_losses, norm

    def _backward(self, batches: Iterator[Any]) -> Losses:
        try:
            batch = next(batches)
        except StopIteration:
            raise TrainingError("data ended before the stage", where=f"{self.name} step {self.step}") from None
        if self.gated is not None:
            self.gated.gates.sample()
        with self.autocast:
            losses: Losses = self.objective(batch)
        (losses.total / self.config.micro_batches).backward()
        return losses

    def _skip(self) -> None:
        self.skipped_steps += 1
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= _MAX_BAD_STEPS:
            raise TrainingError(
                "loss or gradient is not finite",
                where=f"{self.name} step {self.step}",
                got=f"{_MAX_BAD_STEPS} such steps in a row",
                hint="lower the learning rate or set precision to float32",
            )

    @torch.no_grad()
    def _record(self, meter: "_Meter") -> Record:
        more: dict[str, Any] = {}
        if self.gated is not None and self.lagrangian is not None:
            linear, quadratic = self.lagrangian.multipliers.tolist()
            more["sparsity"] = self.gated.expected_sparsity().item()
            more["target"] = self.lagrangian.target_at(self.step)
            more["multipliers"] = (linear, quadratic)
        step_seconds = meter.seconds / meter.count
        return Record(
            stage=self.name,
            step=self.step,
            steps=self.config.steps,
            loss=float(meter.total) / meter.count,
            parts={name: float(value) / meter.count for name, value in meter.parts.items()},
            learning_rate=self.optimizer.param_groups[0]["lr"],
            gradient_norm=float(meter.norm),
            amount_per_second=meter.amount / meter.seconds,
            step_seconds=step_seconds,
            seconds_left=step_seconds * (self.config.steps - self.step),
            skipped_steps=self.skipped_steps,
            **more,
        )

    def state(self) -> dict[str, Any]:
        """Everything that a bit-exact continuation needs."""
        return {
            "stage": self.name,
            "step": self.step,
            "seconds": self.seconds,
            "skipped_steps": self.skipped_steps,
            "bad_in_a_row": self._bad_in_a_row,
            "objective": self.objective.state_dict(),
            "gates": self.gated.gates.state_dict() if self.gated else {},
            "lagrangian": self.lagrangian.state_dict() if self.lagrangian else {},
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned, in a stage built the same way."""
        self.step, self.seconds, self.skipped_steps = state["step"], state["seconds"], state["skipped_steps"]
        self._bad_in_a_row = state.get("bad_in_a_row", 0)
        self.objective.load_state_dict(state["objective"])
        if self.gated is not None and self.lagrangian is not None:
            self.gated.gates.load_state_dict(state["gates"])
            self.lagrangian.load_state_dict(state["lagrangian"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_random_state(state["random"])


class _Meter:
    """Sums since the last record; tensors stay on their device until then."""

    def __init__(self) -> None:
        self.count, self.seconds, self.amount = 0, 0.0, 0.0
        self.total: Tensor | float = 0.0
        self.norm: Tensor | float = 0.0
        self.parts: dict[str, Tensor | float] = {}

    def add(self, all_losses: list[Losses], norm: Tensor, seconds: float) -> None:
        self.count, self.seconds, self.norm = self.count + 1, self.seconds + seconds, norm
        for losses in all_losses:
            self.amount += losses.amount
            self.total = self.total + losses.total.detach() / len(all_losses)
            for name, value in losses.parts.items():
                self.parts[name] = self.parts.get(name, 0.0) + value.detach() / len(all_losses)


@torch.no_grad()
def evaluate(objective: Objective, batches: list[Any]) -> tuple[float, dict[str, float]]:
    """Mean loss and parts over fixed batches, weighted by amount; in evaluation mode and full precision."""
    training = objective.training
    objective.eval()
    total, amount, parts = 0.0, 0.0, {}
    for batch in batches:
        losses: Losses = objective(batch)
        total, amount = total + losses.total.item() * losses.amount, amount + losses.amount
        for name, value in losses.parts.items():
            parts[name] = parts.get(name, 0.0) + value.item() * losses.amount
    objective.train(training)
    return total / amount, {name: value / amount for name, value in parts.items()}
