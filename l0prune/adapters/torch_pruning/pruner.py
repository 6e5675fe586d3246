"""Our pruning under the names of torch-pruning's pruners.

Legend: a group of torch-pruning's lists items; an item is a dependency (a layer and the function that prunes it), the
channels that it prunes there, and for each of them the channel of the group's root layer that it follows. C channels of
the root layer, N units of all our groups one after the other.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph
from torch_pruning.pruner.algorithms.scheduler import linear_scheduler
from torch_pruning.pruner.importance import Importance

from l0prune.adapters.dependency_graphs import groups_in, groups_of_graph, owners_of, places_of
from l0prune.discovery import discover
from l0prune.errors import ConfigError, GroupError, TargetError
from l0prune.example import Example
from l0prune.groups import PruneGroup, Role
from l0prune.measuring import macs, parameters
from l0prune.pruner import L0Pruner, wrap
from l0prune.removal import RemovalPlan, plan_of
from l0prune.support import check_arguments, evaluating, is_inside, own_modules, path_of, several
from l0prune.workflows import prune

_NO_COUNTERPART = {
    "pruning_ratio_dict": (None, "the selection finds each layer's share; ignored_layers keeps layers as they are"),
    "max_pruning_ratio": (1.0, "the selection finds each layer's share; ignored_layers keeps layers as they are"),
    "global_pruning": (True, "all units compete for one budget, the share of the model's size"),
    "isomorphic": (False, "all units compete for one budget, the share of the model's size"),
    "prune_num_heads": (True, "heads leave whole"),
    "prune_head_dims": (False, "heads leave whole"),
    "head_pruning_ratio": (0.0, "heads and channels compete for one budget: pruning_ratio"),
    "head_pruning_ratio_dict": (None, "heads and channels compete for one budget: pruning_ratio"),
    "in_channel_groups": (None, "groups of channels are found by following the forward pass"),
    "out_channel_groups": (None, "groups of channels are found by following the forward pass"),
    "channel_groups": (None, "groups of channels are found by following the forward pass"),
    "root_module_types": (None, "every layer is followed; ignored_layers keeps layers as they are"),
    "ch_sparsity": (None, "it is called pruning_ratio"),
    "ch_sparsity_dict": (None, "it is called pruning_ratio, for the whole model"),
}
"""Of torch-pruning's arguments that have no counterpart, the value that says what is done anyway, and why."""


class Pruner:
    """Pruning under the names of torch-pruning's `BasePruner`, in place, over `l0prune.prune` and `l0prune.wrap`.

    With an importance, `step()` prunes at once:

        pruner = Pruner(model, example_inputs, importance="magnitude", pruning_ratio=0.5)
        pruner.step()

    Without one, gates are learned in your training loop, and `step()` cuts what they have closed:

        pruner = Pruner(model, example_inputs, pruning_ratio=0.5, total_steps=1000)
        optimizer = torch.optim.AdamW(model.parameters())
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss(model(inputs), labels).backward()
            pruner.regularize(model)
            optimizer.step()
        pruner.step()

    Afterwards parameters are new ones, as with torch-pruning: make the optimizer anew. Modules stay the same objects.

    Args:
        model: Any nn.Module; it is changed in place.
        example_inputs: A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments.
        importance: What ranks units: an importance of torch-pruning's; or what `l0prune.prune` takes, "magnitude" or
            a function of model and groups, for example. None learns gates.
        pruning_ratio: Share of the whole model's size to remove. (torch-pruning's is a share of channels.)
        iterative_steps: Calls of `step()` until the ratio is reached.
        iterative_pruning_ratio_scheduler: `f(pruning_ratio, steps)` gives the ratios after 0, 1, ... steps.
        ignored_layers: Modules, or their names, whose outputs stay. As with torch-pruning their inputs may go;
            `ignored=` of `l0prune.prune` keeps these, too.
        round_to: Widths stay multiples of this many channels; a head counts with all of its own.
        num_heads: Heads by query, key and value projection. They are found by following the forward pass; this tells
            those of projections where it does not show. The dictionary is kept up to date.
        customized_pruners: As torch-pruning takes them. With these or the next, groups come from a `DependencyGraph`.
        unwrapped_parameters: Parameters outside layers and the dimension to prune, [(parameter, dim)] or a dictionary.
        forward_fn: Runs the model: `forward_fn(model, example_inputs)`.
        output_transform: Picks what matters from the model's outputs.
        metric: What the size counts: "params", or "macs" on the example inputs.
        others: Further arguments of `l0prune.prune` ("batches", "loss", "repair") or `l0prune.wrap` ("total_steps").
            Arguments of torch-pruning's that have no counterpart are refused unless they say what is done anyway.

    Raises:
        ConfigError: A setting is out of range or has no counterpart.
        L0PruneError: As `l0prune.wrap` does, where gates are learned.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        importance: str | Importance | Callable[[nn.Module, Sequence[PruneGroup]], Any] | None = None,
        *,
        pruning_ratio: float = 0.5,
        iterative_steps: int = 1,
        iterative_pruning_ratio_scheduler: Callable[[float, int], Sequence[float]] | None = linear_scheduler,
        ignored_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        round_to: int | None = None,
        num_heads: dict[nn.Module, int] | None = None,
        customized_pruners: Mapping[Any, Any] | None = None,
        unwrapped_parameters: Mapping[nn.Parameter, int] | Iterable[tuple[nn.Parameter, int]] | None = None,
        forward_fn: Callable[[nn.Module, Any], Any] | None = None,
        output_transform: Callable[[Any], Any] | None = None,
        metric: str = "params",
        **others: Any,
    ) -> None:
        for name in [name for name in others if name in _NO_COUNTERPART]:
            value, why = others.pop(name), _NO_COUNTERPART[name][1]
            if value != _NO_COUNTERPART[name][0] and (value or _NO_COUNTERPART[name][0] is not None):
                raise ConfigError("an argument of torch-pruning's has no counterpart", where=name, got=value, hint=why)
        if not isinstance(pruning_ratio, Real) or not 0 < pruning_ratio < 1:
            raise TargetError("pruning_ratio out of range", got=repr(pruning_ratio), expected="a number in (0, 1)")
        if not isinstance(iterative_steps, int) or iterative_steps < 1:
            raise ConfigError("iterative_steps out of range", got=repr(iterative_steps), expected="1 or more")
        self.model, self.example_inputs, self.importance, self.metric = model, example_inputs, importance, metric
        self.pruning_ratio, self.iterative_steps, self.current_step = pruning_ratio, iterative_steps, 0
        self.num_heads = {} if num_heads is None else num_heads
        self._ignored = [path_of(model, module) for module in several(() if ignored_layers is None else ignored_layers)]
        self._customized = dict(customized_pruners or {})
        # Parameters are replaced at each cut; their names stay.
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        pairs = unwrapped_parameters.items() if isinstance(unwrapped_parameters, Mapping) else unwrapped_parameters
        self._unwrapped = [(_known(names, parameter), dim) for parameter, dim in pairs or ()]
        self._running: dict[str, Any] = {"forward_fn": forward_fn, "output_transform": output_transform}
        self._settings = {
            "metric": metric,
            # None is no rounding there.
            "round_to": round_to or 1,
            **self._running,
            **others,
        }
        self.learner: L0Pruner | None = None
        """What learns the gates, where there is no importance."""
        if importance is None:
            if iterative_steps > 1:
                hint = "the target rises while gates are learned: total_steps says for how long"
                raise ConfigError("gates are cut once", where="iterative_steps", got=iterative_steps, hint=hint)
            self.learner = wrap(
                model, example_inputs, target_sparsity=pruning_ratio, **self._groups(), **self._settings
            )
            return
        scheduler = iterative_pruning_ratio_scheduler or linear_scheduler
        self._ratios = list(scheduler(pruning_ratio, iterative_steps))
        if len(self._ratios) != iterative_steps + 1:
            got, expected = f"{len(self._ratios)} ratios", f"{iterative_steps + 1}: one before and one after each step"
            raise ConfigError("iterative_pruning_ratio_scheduler", got=got, expected=expected)
        self._dense_size = self._size()
        check_arguments(others, {*signature(prune).parameters, *_OWN})

    def regularize(self, model: nn.Module, loss: Tensor | None = None) -> None:
        """Let the gates learn from a backward pass: call it between `backward()` and the optimizer's step.

        Does nothing where an importance ranks the units.

        Args:
            model: The pruner's model; torch-pruning's pruners take it here, too.
            loss: Not needed, as there.

        Raises:
            TrainingError: As `L0Pruner.step` does.
        """
        if self.learner is not None and self.current_step == 0:
            self.learner.step()

    def update_regularizer(self) -> None:
        """Nothing: the gates have a schedule of their own. Loops for torch-pruning call it at each epoch."""

    def step(self, interactive: bool = False) -> None:
        """Prune the model in place to the next ratio.

        Args:
            interactive: False: which units go is decided for all groups together.

        Raises:
            ConfigError: `interactive` is true.
            L0PruneError: As `l0prune.prune` or `L0Pruner.finalize` does.
        """
        if interactive:
            hint = "l0prune.inspect shows the groups, plan_of(model) what was removed"
            raise ConfigError("an argument of torch-pruning's has no counterpart", where="interactive", hint=hint)
        if self.current_step == self.iterative_steps:
            warnings.warn("all iterative steps are done: nothing is pruned any more", stacklevel=2)
            return
        if self.learner is not None:
            pruned = self.learner.finalize()
            self.learner.gated.detach()
        else:
            now, ratio = self._size(), self._ratios[self.current_step + 1]
            # Rounded as the target of the whole ratio would be, so that several steps end where one would.
            budget = math.floor(round(self._dense_size * (1 - ratio), 6))
            pruned = None
            if budget < now:
                pruned = prune(
                    self.model,
                    self.example_inputs,
                    target_sparsity=1 - budget / now,
                    importance=self._ranking(),
                    **self._groups(),
                    **self._settings,
                )
        self.current_step += 1
        if pruned is not None:
            paths = {module: path_of(self.model, module) for module in self.num_heads}
            _become(self.model, pruned)
            self._count_heads(paths)

    def _size(self) -> int:
        if self.metric != "macs":
            return parameters(self.model)
        observe = Example(self.example_inputs, *self._running.values()).checked(self.model)
        with torch.no_grad():
            return macs(lambda: observe(self.model))

    def _groups(self) -> dict[str, Any]:
        """Groups as `groups=` takes them, where anything was said about them."""
        if self._customized or self._unwrapped:
            with evaluating(self.model):
                groups = groups_of_graph(self._graph(), num_heads=self.num_heads)
        elif self.num_heads or self._ignored:
            groups = self._followed()
        else:
            return {}
        # torch-pruning keeps the outputs of what it ignores: it goes on pruning its inputs.
        left = [
            group
            for group in groups
            if not any(p.role is Role.PRODUCES and is_inside(p.tensor, *self._ignored) for p in group.places)
        ]
        if groups and not left:
            raise GroupError("ignored_layers leaves nothing to prune", where=type(self.model).__name__)
        return {"groups": left}

    def _followed(self) -> tuple[PruneGroup, ...]:
        """Groups by following the forward pass, which is told only of heads that it does not show."""
        observe = Example(self.example_inputs, *self._running.values()).checked(self.model)
        groups = discover(self.model, observe).groups
        shown = {place.tensor for group in groups if group.kind == "head" for place in group.places}
        weights = {module: f"{path_of(self.model, module)}.weight" for module in self.num_heads}
        hidden = {module: self.num_heads[module] for module, name in weights.items() if name not in shown}
        return discover(self.model, observe, num_heads=hidden).groups if hidden else groups

    def _graph(self) -> DependencyGraph:
        unwrapped = [(self.model.get_parameter(name), dim) for name, dim in self._unwrapped]
        with torch.enable_grad():
            return DependencyGraph().build_dependency(
                self.model,
                self.example_inputs,
                unwrapped_parameters=unwrapped,  # pyright: ignore[reportArgumentType] - it takes pairs
                customized_pruners=self._customized,
                verbose=False,
                **self._running,
            )

    def _ranking(self) -> Any:
        """The importance as `prune` takes it."""
        if not isinstance(self.importance, Importance):
            return self.importance
        importance = self.importance

        def ranked(model: nn.Module, groups: Sequence[PruneGroup]) -> np.ndarray:
            with evaluating(model):
                return _scores(self._graph(), importance, groups)

        return ranked

    def _count_heads(self, paths: Mapping[nn.Module, str]) -> None:
        """Keep `num_heads` up to date: scripts for torch-pruning write it back to their attention layers."""
        groups = [group for group in plan_of(self.model).remaining_groups() if group.kind == "head"]
        for module, path in paths.items():
            for group in groups:
                if any(place.tensor == f"{path}.weight" and place.role is Role.PRODUCES for place in group.places):
                    self.num_heads[module] = group.units


_OWN = {*signature(Pruner).parameters} - {"others"}


def _known(names: Mapping[int, str], parameter: Any) -> str:
    if id(parameter) not in names:
        raise GroupError("no such parameter in the model", where=f"unwrapped_parameters, {type(parameter).__name__}")
    return names[id(parameter)]


def _scores(graph: Any, importance: Importance, groups: Sequence[PruneGroup]) -> np.ndarray:
    """An importance of torch-pruning's for our units, (N,): the mean over the channels that each holds."""
    owners, units = owners_of(groups), sum(group.units for group in groups)
    total, count = np.zeros(units), np.zeros(units)
    for _, members in groups_in(graph):
        scores = importance(members)
        if scores is None:
            continue
        pairs = {
            (owner[index], root)
            for item in members
            for (name, dim, _), positions in places_of(graph, item)[0].items()
            for here, root in zip(positions, item.root_idxs, strict=True)
            for index in here
            if root is not None and index in (owner := owners.get((name, dim), {}))
        }
        row = {root: n for n, root in enumerate(members[0].root_idxs)}
        values = scores.detach().double().cpu().numpy()
        for unit, root in pairs:
            total[unit] += values[row[root]]
            count[unit] += 1
    if not count.all():
        first = int(np.flatnonzero(count == 0)[0])
        ends = np.cumsum([group.units for group in groups])
        name = groups[int(np.searchsorted(ends, first, side="right"))].name
        hint = "leave them to ignored_layers, or choose an importance of l0prune's"
        raise GroupError("torch-pruning's importance does not know these units", where=name, hint=hint)
    return total / count


def _become(model: nn.Module, pruned: nn.Module) -> None:
    """Turn a model into its pruned copy in place: modules, their mode, their hooks and what else they hold stay."""
    mine = dict(model.named_modules())
    training = {path: module.training for path, module in mine.items()}
    twins = [(mine[path], module) for path, module in pruned.named_modules() if path in mine]
    stays = {id(new): old for old, new in twins}
    for old, new in twins:
        state = vars(new)
        if type(old) is type(new):
            state = {key: value for key, value in state.items() if key not in vars(old) or isinstance(value, _PLAIN)}
        children = {name: stays.get(id(child), child) for name, child in own_modules(new).items()}
        old.__class__ = new.__class__
        old.__dict__ = {**vars(old), **state, **{key: vars(new)[key] for key in _TENSORS}, "_modules": children}
    for path, module in model.named_modules():
        module.training = training.get(path, model.training)


_PLAIN = (int, float, str, tuple, Tensor, RemovalPlan, type(None))
"""What a cut may change on a module, beside its tensors: sizes, counts, the plan."""
_TENSORS = ("_parameters", "_buffers")
