"""One training loop for both stages: joint distillation and pruning, then further distillation."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.config import CompactionConfig, ControllerConfig, ElasticConfig, StageConfig
from l0prune.distributed import agree, average, together, world
from l0prune.errors import TrainingError
from l0prune.gates import Controller, GatedModel
from l0prune.measuring import has_fast_bfloat16, parameters
from l0prune.quantisation import rounding
from l0prune.removal import RemovalPlan
from l0prune.support import random_state, restore_random_state
from l0prune.training.compiling import compile_layers
from l0prune.training.objective import Losses, Objective, mean
from l0prune.training.records import Meter, Record

_MAX_BAD_STEPS = 10
_NO_MEMORY = "can't allocate memory"


class Stage:
    """A training stage: all of its state, and the loop.

    Args:
        name: "joint" or "further".
        objective: What is minimised.
        config: Steps and rates.
        precision: "auto", "float32" or "bfloat16".
        gated: The gated student in the joint stage; in both stages of an elastic run.
        controller: Settings of what brings its expected size to the target.
        prior: (N,) importances that it may go by where the loss has no gradient.
        compaction: When closed units leave the network; never by default.
        elastic: The sizes of an elastic run; None for one size.
        seed: Of every draw. What a micro-batch draws depends on it and on the micro-batch's number alone.
        split: Into how many parts the batches of the configuration come.
        compiled: Compile the student with torch.compile.
        describe: What to say of a batch that does not fit in memory: its size, and the setting to change.
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
        prior: np.ndarray | None = None,
        compaction: CompactionConfig | None = None,
        elastic: ElasticConfig | None = None,
        seed: int = 0,
        split: int = 1,
        compiled: bool = False,
        describe: Callable[[Any], str] | None = None,
    ) -> None:
        self.name, self.objective, self.config, self.gated = name, objective, config, gated
        self.seed, self.describe = seed, describe
        self.micro_batches = config.micro_batches * split // world().size
        """Of each step, in this process."""
        self.weights = [p for p in objective.parameters() if p.requires_grad]
        self.device = self.weights[0].device
        rates: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        groups: list[dict[str, Any]] = [{"params": self.weights, **rates}]
        self.controller: Controller | None = None
        if gated is not None:
            settings = controller or ControllerConfig()
            self.controller = Controller(gated, settings, compaction=compaction, elastic=elastic, prior=prior)
            groups = self.controller.parameter_groups(self.weights, **rates)
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        use_bfloat16 = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(self.device))
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=use_bfloat16)
        if compiled:
            compile_layers(objective.student)
        self.step = 0
        self.seconds = 0.0
        self._meter = Meter()
        # On the device: the loop does not wait for it between logging steps.
        self._skipped = torch.zeros((), device=self.device)
        self._bad_in_a_row = torch.zeros((), device=self.device)

    @property
    def skipped_steps(self) -> int:
        """Steps whose loss or gradient was not finite."""
        return int(self._skipped)

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then linear decay that would reach the final share of the peak after the last step."""
        warmup, steps = self.config.warmup_steps, self.config.steps
        rise = (step + 1) / warmup if step < warmup else 1.0
        fall = (steps - step) / (steps - warmup) if step >= warmup else 1.0
        final = self.config.final_rate
        return self.config.learning_rate * rise * (final + (1 - final) * fall)

    def run(
        self,
        batches: Iterator[Any],
        *,
        log_every: int,
        on_record: Callable[[Record], None],
        after_step: Callable[[int], None] = lambda signal_number: None,
        stopped: Callable[[], int | None] = lambda: None,
        on_cut: Callable[[RemovalPlan], None] = lambda plan: None,
    ) -> None:
        """Train to the end of the stage.

        Args:
            batches: This process's micro-batches from the stage's current step on.
            log_every: Steps between records.
            on_record: Takes each record.
            after_step: Called after each step with the signal that has come to any process, or 0; may save the state,
                or raise to stop.
            stopped: Gives the signal that has come to this process, if any.
            on_cut: Told of each compaction, by its plan in the dense model's indices.

        Raises:
            TrainingError: The data ended, or losses stayed non-finite for too many steps in a row.
            FailedElsewhere: Another process failed.
        """
        together(self.objective.begin)
        self.objective.train()
        with self._rounding():
            self._train(batches, log_every, on_record, after_step, stopped, on_cut)

    def _rounding(self) -> AbstractContextManager[object]:
        """What rounds the student to eight bits meanwhile, where the settings say so."""
        if not self.config.fake_int8:
            return nullcontext()
        return rounding(self.objective.student, activations=self.config.fake_int8 == "all")

    def _train(
        self,
        batches: Iterator[Any],
        log_every: int,
        on_record: Callable[[Record], None],
        after_step: Callable[[int], None],
        stopped: Callable[[], int | None],
        on_cut: Callable[[RemovalPlan], None],
    ) -> None:
        while self.step < self.config.steps:
            began = time.perf_counter()
            losses, norm, signal_number = self.update(batches, stopped)
            self.step += 1
            self._compact(on_cut)
            logs = self.step % log_every == 0 or self.step in (1, self.config.steps)
            if logs and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            elapsed = time.perf_counter() - began
            self.seconds += elapsed
            self._meter.add(losses, norm, elapsed)
            if logs or self.device.type == "cpu":
                self._check_finite()
            if logs:
                on_record(self._record())
                self._meter = Meter()
            if world().size == 1:
                signal_number = signal_number or stopped() or 0
            after_step(signal_number)

    def update(
        self, batches: Iterator[Any], stopped: Callable[[], int | None] = lambda: None
    ) -> tuple[list[Losses], Tensor, int]:
        """One optimizer step; a non-finite one leaves everything as it was.

        Args:
            batches: Gives this process's micro-batches.
            stopped: Gives the signal that has come to this process, if any.

        Returns:
            Losses of the micro-batches, the norm of the gradient before clipping, and the signal that has come to any
            process, or 0.

        Raises:
            TrainingError: The data ended, or a batch does not fit in memory.
            FailedElsewhere: Another process failed.
        """
        self.optimizer.param_groups[0]["lr"] = self.learning_rate_at(self.step)
        error, all_losses = None, []
        try:
            all_losses = [self._backward(batches, number) for number in range(self.micro_batches)]
        except Exception as failure:
            error = failure
        signal_number = self._meet(error, stopped() or 0, all_losses)
        loss = sum(losses.total.detach() for losses in all_losses)
        if self.controller is not None and self.controller.has_penalty:
            self.controller.penalty().backward()
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.max_gradient_norm)
        bad = (~(torch.isfinite(norm) & torch.isfinite(loss))).float()  # pyright: ignore[reportArgumentType]
        # The fused kernel leaves everything as it is where this is 1, as under a gradient scaler.
        self.optimizer.found_inf = bad  # pyright: ignore[reportAttributeAccessIssue]
        self.optimizer.step()
        if self.controller is not None:
            self.controller.step(skipped=bad)
        self._skipped, self._bad_in_a_row = self._skipped + bad, (self._bad_in_a_row + 1) * bad
        self.optimizer.zero_grad()
        return all_losses, norm, signal_number

    def _backward(self, batches: Iterator[Any], number: int) -> Losses:
        try:
            batch = next(batches)
        except StopIteration:
            raise TrainingError("data ended before the stage", where=f"{self.name} step {self.step}") from None
        self._seed(world().rank + number * world().size)
        if self.gated is not None:
            self.gated.gates.sample()
        sizes = self.controller.sizes if self.controller is not None else (None,)
        try:
            return mean([self._backward_at(batch, left, len(sizes)) for left in sizes])
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
                raise
            got = self.describe(batch) if self.describe else None
            raise TrainingError(
                "batch does not fit in memory", where=f"{self.name} step {self.step}", hint=got
            ) from error

    def _backward_at(self, batch: Any, left: float | None, sizes: int) -> Losses:
        """Losses of a batch, and their gradients added, for one of the sizes that a step of an elastic run trains."""
        with self.controller.at(left) if self.controller is not None else nullcontext():
            with self.autocast:
                losses: Losses = self.objective(batch)
            # A checkpointed layer runs again here.
            (losses.total / (self.micro_batches * sizes)).backward()
        return losses

    def _seed(self, micro_batch: int) -> None:
        """Seed what a micro-batch draws, by its number among those of all processes: gates, dropout."""
        place = (self.seed, self.name == "further", self.step, micro_batch)
        torch.manual_seed(int(np.random.SeedSequence([int(n) for n in place]).generate_state(1, np.uint64)[0]))

    def _meet(self, error: Exception | None, signal_number: int, all_losses: list[Losses]) -> int:
        """Meet the other processes: fail together, stop together, average gradients."""
        if world().size == 1:
            return agree(error, [signal_number])[0]
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.controller is not None:
            # A controller that moves the gates itself leaves them out of the optimizer, and goes by their gradients.
            held = {id(p) for p in trained}
            trained += [p for p in self.controller.controlled() if id(p) not in held]
        signal_number, *used = agree(error, [signal_number, *(p.grad is not None for p in trained)])
        for parameter, anywhere in zip(trained, used, strict=True):
            if anywhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # A loss that is not finite in one process spoils the step in all.
        average([p.grad for p in trained if p.grad is not None] + [losses.total.detach() for losses in all_losses])
        return signal_number

    def _compact(self, on_cut: Callable[[RemovalPlan], None]) -> None:
        """Cut what has closed for good."""
        # The last step is followed by the cut proper.
        if self.controller is None or self.step == self.config.steps:
            return
        gone = self.controller.compact([self.optimizer])
        if gone is not None:
            self.weights = self.optimizer.param_groups[0]["params"]
            on_cut(gone)

    def _check_finite(self) -> None:
        if int(self._bad_in_a_row) >= _MAX_BAD_STEPS:
            raise TrainingError(
                "loss or gradient is not finite",
                where=f"{self.name} step {self.step}",
                got=f"{int(self._bad_in_a_row)} such steps in a row",
                hint="lower the learning rate or set precision to float32",
            )

    @torch.no_grad()
    def _record(self) -> Record:
        more: dict[str, Any] = {}
        if self.gated is not None and self.controller is not None:
            more["sparsity"], more["target"] = self.controller.sparsity
            more["forced_units"] = self.gated.gates.forced()
            if multipliers := self.controller.controller.multiplier_values():
                more["multipliers"] = tuple(multipliers)
        means = self._meter.means()
        return Record(
            stage=self.name,
            step=self.step,
            steps=self.config.steps,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            seconds_left=means["step_seconds"] * (self.config.steps - self.step),
            skipped_steps=self.skipped_steps,
            parameters=parameters(self.objective.student),
            **means,
            **more,
        )

    def state(self) -> dict[str, Any]:
        """Everything that a bit-exact continuation needs."""
        return {
            "stage": self.name,
            "step": self.step,
            "seconds": self.seconds,
            "skipped_steps": self.skipped_steps,
            "bad_in_a_row": int(self._bad_in_a_row),
            "objective": self.objective.state_dict(),
            "controller": self.controller.state_dict() if self.controller else {},
            "optimizer": self.optimizer.state_dict(),
            "meter": self._meter.state(),
            "random": random_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned, in a stage built the same way."""
        if self.controller is not None:
            mine = state["controller"] if "controller" in state else _in_parts(state)
            self.controller.restore(mine, [self.optimizer])
            self.weights = self.optimizer.param_groups[0]["params"]
        self.step, self.seconds = state["step"], state["seconds"]
        self._skipped.fill_(state["skipped_steps"])
        self._bad_in_a_row.fill_(state["bad_in_a_row"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        # Earlier versions began a new mean where they were resumed.
        self._meter.restore(state.get("meter", {}))
        restore_random_state(state["random"])


def _in_parts(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The controller's state in a stage's that was saved before there was one: gates, multipliers, what has left."""
    made = {
        "steps": torch.tensor(state["step"]),
        **{f"gates.{name}": value for name, value in state["gates"].items()},
        **{f"controller.{name}": value for name, value in state["lagrangian"].items()},
    }
    if state["compaction"]:
        plan, looks = RemovalPlan.from_json(state["compaction"]), state["looks"]
        here = np.concatenate([np.isin(np.arange(group.units), plan.kept[group.name]) for group in plan.groups])
        made |= {
            "compactor.here": torch.from_numpy(np.flatnonzero(here)),
            "compactor.looks": torch.tensor(looks["looks"], dtype=torch.int64),
            "compactor.reached": torch.tensor(int(looks["reached"])),
        }
    return made
