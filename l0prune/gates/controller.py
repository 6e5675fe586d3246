"""What drives gates while weights are trained, whoever's loop that is: a caller's own, or a stage's of `compress`.

Legend: N units of all groups, one after the other.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l0prune.config import CompactionConfig, ControllerConfig, ElasticConfig
from l0prune.errors import ConfigError, TrainingError
from l0prune.gates.compaction import Compactor, compact
from l0prune.gates.elastic import ElasticController
from l0prune.gates.gated_model import GatedModel
from l0prune.gates.size_controller_by_name import size_controller
from l0prune.gates.size_controllers import reading_waits
from l0prune.removal import RemovalPlan
from l0prune.support import applied_key

_LOOK_EVERY = 10
"""Steps between looks at what only the device knows, and how many in a row without a gradient are too many."""


class Sparsity(NamedTuple):
    """Share of the size that is gone, in [0, 1]."""

    expected: float
    """Expected under the gates as they are now."""
    target: float
    """What the controller asks for at this step."""


class Controller(nn.Module):
    """Gates, what brings their size to the target, and the units that leave meanwhile.

        optimizer = torch.optim.AdamW(controller.parameter_groups(model.parameters(), lr=1e-3))
        for inputs in batches:
            (loss(model(inputs)) + controller.penalty()).backward()
            optimizer.step()
            controller.step()
            controller.compact([optimizer])

    `state_dict()` is all that a continuation needs beside weights and optimizer. It may stand inside the model that it
    drives, whose `state_dict()` then includes it. Nothing waits for the device from step to step.

    Args:
        gated: The model with gates, and their target.
        settings: Which size controller, its schedule and rates.
        compaction: When closed units leave the network; never by default, and never where a run is elastic.
        elastic: The sizes of an elastic run; None for one size.
        start: (N,) importances that gates start from, where the size controller goes by any.
        prior: (N,) importances that it goes by where the loss has no gradient.

    Raises:
        ConfigError: There is a start, and the size controller goes by none.
    """

    steps: Tensor

    def __init__(
        self,
        gated: GatedModel,
        settings: ControllerConfig,
        *,
        compaction: CompactionConfig | None = None,
        elastic: ElasticConfig | None = None,
        start: np.ndarray | None = None,
        prior: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        # A tuple hides it from `modules()`: the gated model may hold this controller.
        self._gated, self.settings = (gated,), settings
        self.gates = gated.gates
        self.controller = size_controller(
            gated.target_sparsity, settings, gated.gates, elastic=elastic, start=start, prior=prior
        )
        """Of the size. Saved states know it by this name."""
        leaves = compaction is not None and compaction.enabled and not isinstance(self.controller, ElasticController)
        # A unit that is closed at one size is open at another.
        self.compactor = Compactor(gated, compaction) if compaction is not None and leaves else None
        self.made = 0
        """Steps made."""
        # What is saved and copied; `made` spares reading it back from a GPU.
        self.register_buffer("steps", torch.tensor(0))
        self.bad_steps = torch.zeros((), dtype=torch.float64, device=gated.gates.log_alpha.device)
        """Steps, since the last look, that made gates or multipliers non-finite."""
        self.last_good = self.controlled_now()
        """What gates and multipliers go back to when a step makes them non-finite."""
        self._known: list[weakref.ref[Optimizer]] = []
        """Optimizers that are known to train all weights."""
        self.register_load_state_dict_post_hook(_read)

    def __getattr__(self, name: str) -> Any:
        """Tell torch's `fully_shard` to leave it alone: gates are few, and each process needs all of them."""
        if name == applied_key():
            return {"replicate": None}
        return super().__getattr__(name)

    @property
    def gated(self) -> GatedModel:
        """The model with gates."""
        return self._gated[0]

    @property
    def has_penalty(self) -> bool:
        """Whether `penalty` says anything."""
        return self.controller.has_penalty

    @property
    def target(self) -> float:
        """The sparsity that is asked for at this step."""
        return self.controller.target_at(self.made)

    @property
    def sparsity(self) -> Sparsity:
        """Expected sparsity, and the target at this step; waits for the device."""
        with torch.no_grad():
            return Sparsity(float(self.gated.expected_sparsity()), self.target)

    def trained(self) -> list[nn.Parameter]:
        """What the optimizer of the weights trains too, at rates of its own: gates and multipliers, or nothing."""
        return self.controller.trained(self.gates)

    def controlled(self) -> list[nn.Parameter]:
        """Locations of the gates, and multipliers."""
        return list(dict.fromkeys([self.gates.log_alpha, *self.trained()]))

    def controlled_now(self) -> list[Tensor]:
        """A copy of them."""
        return [tensor.detach().clone() for tensor in self.controlled()]

    def parameter_groups(
        self, weights: Iterable[nn.Parameter], *, adaptive: bool = True, **options: Any
    ) -> list[dict[str, Any]]:
        """Parameter groups for any torch optimizer: the weights, then whatever it is to train of the gates.

        Args:
            weights: Those that take no gradient, gates and multipliers are left out.
            adaptive: Whether the optimizer scales its steps, as Adam and RMSprop do.
            options: Of the optimizer, for the weights.
        """
        special, trained = self.controlled(), self.trained()
        own = [p for p in weights if p.requires_grad and not any(p is other for other in special)]
        rates = [self.settings.learning_rate] * len(trained)
        fixed: dict[str, Any] = {"weight_decay": 0.0}
        if not adaptive:
            # The expected sparsity's gradient is shared out among the units; the multipliers' is the gap itself.
            rates = [rate * factor for rate, factor in zip(rates, (len(special[0]), 10), strict=False)]
            # Momentum would carry the controller past its target.
            fixed |= {"momentum": 0.0, "nesterov": False}
        others = [{"params": [p], "lr": rate, **fixed} for p, rate in zip(trained, rates, strict=True)]
        return [{"params": own, **options}, *others]

    def penalty(self) -> Tensor:
        """What to add to the loss for the expected sparsity; float64 scalar, 0 where gates are moved without one."""
        if not self.has_penalty:
            return self.controller.penalty(torch.zeros(()), self.made)
        gated = self.gated
        found = gated.expected_sparsities() if gated.gates.more else gated.expected_sparsity()
        return self.controller.penalty(found, self.made)

    def step(self, *, skipped: Tensor | None = None) -> None:
        """Follow an optimizer step, before the gradients of the next one.

        Args:
            skipped: 1 on the device where the optimizer has left the step out; None where that cannot be.

        Raises:
            TrainingError: As `check` says. A CPU is looked at each time, another device every ten steps.
        """
        self.put_back()
        if self.made % _LOOK_EVERY == 0 or not reading_waits(self.bad_steps):
            self.check()
        self.made += 1
        self.steps.fill_(self.made)
        self.controller.after_step(self.gates, self.made, skipped=skipped)
        self.gates.forget_sample()

    def put_back(self) -> None:
        """Undo, on the device, a step that has made gates or multipliers non-finite."""
        controlled = [tensor.detach() for tensor in self.controlled()]
        fine = torch.stack([torch.isfinite(tensor).all() for tensor in controlled]).all()
        pairs = zip(controlled, self.last_good, strict=True)
        self.last_good = [torch.where(fine, tensor, good) for tensor, good in pairs]
        for tensor, good in zip(controlled, self.last_good, strict=True):
            tensor.copy_(good)
        self.bad_steps = self.bad_steps + (~fine).double()

    def check(self) -> None:
        """Look whether all steps since the last look were finite; waits for the device.

        Raises:
            TrainingError: The optimizer has made gates or multipliers non-finite; they are as they were before. Or
                gates have had no finite gradient for ten steps.
        """
        if float(self.bad_steps):
            self.bad_steps = torch.zeros_like(self.bad_steps)
            raise TrainingError(
                "the optimizer made the gates non-finite: the loss was NaN or infinite",
                where=f"step {self.made}",
                hint="gates and multipliers are as they were before it; skip a step whose loss is not finite",
            )
        if (bad := self.controller.steps_without_gradient()) >= _LOOK_EVERY:
            raise TrainingError(
                "the gates get no finite gradient",
                where=f"step {self.made}",
                got=f"{bad} such steps in a row",
                hint="is the loss NaN or infinite? Call step() after backward() and before gradients are set to zero",
            )

    @property
    def sizes(self) -> Sequence[float | None]:
        """Shares of the size to train in this step, one after the other, each under `at`; None for the gates as are."""
        elastic = self.controller if isinstance(self.controller, ElasticController) else None
        return elastic.sizes_at(self.made) if elastic is not None and self.gates.settled else (None,)

    @contextmanager
    def at(self, left: float | None) -> Iterator[None]:
        """Hold the gates of an elastic run at those of one size meanwhile, in training and evaluation mode.

        Args:
            left: Share of the size that the network keeps; None leaves the gates as they are.

        Raises:
            ConfigError: The run is not elastic, or the share is not between its ends.
        """
        if left is None:
            yield
            return
        with self.gates.fixed(torch.from_numpy(self.kept_at(left))):
            yield

    def kept_at(self, left: float) -> np.ndarray:
        """Units (N,) that a cut of an elastic run to a share of the size keeps, bool.

        Raises:
            ConfigError: The run is not elastic, or the share is not between its ends.
        """
        return self.elastic.kept_at(self.gates, left)

    @property
    def elastic(self) -> ElasticController:
        """What gives every size of an elastic run.

        Raises:
            ConfigError: The run is not elastic.
        """
        if not isinstance(self.controller, ElasticController):
            raise ConfigError("there is one size alone", hint="wrap(..., elastic=(0.25, 1.0)) trains for every size")
        return self.controller

    def compact(self, optimizers: Sequence[Optimizer]) -> RemovalPlan | None:
        """Cut out of the network what has closed for good, if it is time to look; call it after `step`.

        Args:
            optimizers: All that train weights or gates; their states are cut alike.

        Returns:
            All that has left so far, in the dense model's indices, if anything has left now: parameters are new ones
            then. Else None.

        Raises:
            TrainingError: An optimizer's state cannot be cut, or weights are in none of the optimizers.
        """
        if self.compactor is None:
            return None
        self._check_optimizers(optimizers)
        if self.made % self.compactor.config.every_steps:
            return None
        kept = self.compactor.look(self.target)
        if kept is None:
            return None
        self.cut(kept, optimizers)
        return self.gone()

    def gone(self) -> RemovalPlan:
        """All that has left the network so far, in the dense model's indices."""
        return self.gated.plan(np.ones(len(self.gated.here), dtype=bool))

    def _check_optimizers(self, optimizers: Sequence[Optimizer]) -> None:
        if self._known and [known() for known in self._known] == list(optimizers):
            return
        special = self.controlled()
        weights = {
            name: parameter
            for name, parameter in self.gated.model.named_parameters()
            if parameter.requires_grad and not any(parameter is other for other in special)
        }
        held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        lost = [name for name, parameter in weights.items() if id(parameter) not in held]
        if lost:
            raise TrainingError(
                "compaction needs the optimizer of every weight",
                where=lost[0].replace("parametrizations.", "").removesuffix(".original"),
                got=f"{len(lost)} of {len(weights)} weights in none that was given",
                hint="give step() all optimizers, made after a state was loaded; frozen weights need no gradient",
            )
        self._known = [weakref.ref(optimizer) for optimizer in optimizers]

    def cut(self, kept: np.ndarray, optimizers: Sequence[Optimizer]) -> None:
        """Cut units out of the network, of the optimizers' states, and of all that is kept of them here.

        Args:
            kept: (N,) bool, True for units that are left.
            optimizers: All that train weights or gates.

        Raises:
            GroupError: An emptied block holds all that reads another group's units; nothing is cut then.
            TrainingError: An optimizer's state cannot be cut; nothing is cut then.
        """
        before, names = self.gated.here, [group.name for group in self.gated.groups]
        compact(self.gated, kept, *optimizers)
        left = np.isin(before, self.gated.here)
        stay = {group.name for group in self.gated.groups}
        self.controller.shrink(np.flatnonzero(left), [g for g, name in enumerate(names) if name in stay])
        if self.compactor is not None:
            self.compactor.shrink(left)
        self.last_good = self.controlled_now()

    def fit(self, state: MutableMapping[str, Any], prefix: str = "", optimizers: Sequence[Optimizer] = ()) -> None:
        """Cut to the size that a saved state has, so that it can be loaded; mend a state that was saved otherwise.

        Args:
            state: Holds what `state_dict()` gave, maybe without compaction.
            prefix: Of its names there.
            optimizers: Made already; their states are cut too.

        Raises:
            ConfigError: It was saved with compaction and there is none here, or units have left here that it still has.
        """
        mine = {name: f"{prefix}compactor.{name}" for name in ("here", "looks", "reached")}
        here, dense = state.get(mine["here"]), sum(group.units for group in self.gated.dense_groups)
        if self.compactor is None:
            if here is not None and len(here) < dense:
                raise ConfigError(
                    "units have left the network whose state is loaded",
                    got=f"{len(here)} of {dense} units",
                    hint="give `wrap` the compaction of the run that the state was saved in",
                )
            for name in mine.values():
                state.pop(name, None)
            return
        if here is None:
            # Saved without compaction: it begins now.
            here = torch.arange(dense)
            state.update({mine["here"]: here, mine["looks"]: torch.zeros_like(here), mine["reached"]: torch.tensor(0)})
        kept = np.isin(self.gated.here, here.cpu().numpy())
        if kept.sum() != len(here):
            raise ConfigError(
                "units have left the network that the state to load still has",
                got=f"{len(self.gated.here)} units",
                expected=f"those {len(here)} of the state",
                hint="wrap the dense model anew, then load the state",
            )
        if not kept.all():
            self.cut(kept, optimizers)

    def restore(self, state: Mapping[str, Any], optimizers: Sequence[Optimizer] = ()) -> None:
        """Go on from what `state_dict()` gave.

        Args:
            state: Of a controller like this one.
            optimizers: Made already; what has left the network leaves them.

        Raises:
            ConfigError: As `fit` says.
        """
        state = dict(state)
        self.fit(state, optimizers=optimizers)
        self.load_state_dict(state)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model, but keep the dtype: half precision would swallow the steps of an optimizer."""

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        self.bad_steps, self.last_good = moved(self.bad_steps), [moved(tensor) for tensor in self.last_good]
        return super()._apply(moved, recurse)


def _read(controller: Controller, _: object) -> None:
    controller.made, controller.last_good, controller._known = int(controller.steps), controller.controlled_now(), []
    gates, size_controller = controller.gates, controller.controller
    gates.settled = False
    size_controller.settle(gates, controller.made)
