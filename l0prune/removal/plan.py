"""The removal plan: which units are kept, in the dense model's own indices."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.fx
from torch import nn

from l0prune.errors import PlanError
from l0prune.groups import Place, PruneGroup, check_groups
from l0prune.removal.composition import check_whole_units, composed
from l0prune.removal.emptied import emptied_modules, emptied_together
from l0prune.support import conforms, is_inside, model_shapes

PLAN_VERSION = 1
MODULE, GRAPH = "module", "graph"
"""What a plan cuts: a network of its own class, or its graph (`l0prune.graphs`)."""
_IN_META = "l0prune_plan"
_MOST_EXTENT = 10**8
"""Of all dimensions of all tensors together: a network of 70 billion parameters has 30 million."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RemovalPlan:
    """Kept units per group, with all that applying them to the dense model takes."""

    groups: tuple[PruneGroup, ...]
    kept: Mapping[str, tuple[int, ...]]
    """Kept units by group name, ascending, in the dense model's indices."""
    shapes: Mapping[str, tuple[int, ...]]
    """Fingerprint of the dense model: the shape of every parameter and buffer, by name."""
    form: str = MODULE
    """What it cuts: "module" or "graph"."""

    def __post_init__(self) -> None:
        for group in self.groups:
            kept = self.kept.get(group.name)
            if kept is None or list(kept) != sorted(set(kept)) or (kept and not 0 <= kept[0] <= kept[-1] < group.units):
                raise PlanError(
                    "kept units do not fit their group",
                    where=group.name,
                    got=kept,
                    expected=f"ascending indices below {group.units}",
                )
            if len(kept) < group.least_units and not group.stands_inside(self.bypassed):
                if kept:
                    expected = f"at least {group.least_units} units, of which the model picks so many"
                    raise PlanError("too few units are kept", where=group.name, got=len(kept), expected=expected)
                raise PlanError("group cannot be emptied: nothing bypasses it", where=group.name)
        if extra := set(self.kept) - {group.name for group in self.groups}:
            raise PlanError("plan names a group that it does not define", where=sorted(extra)[0])

    @property
    def kept_counts(self) -> dict[str, int]:
        """How many units each group keeps."""
        return {name: len(kept) for name, kept in self.kept.items()}

    @property
    def bypassed(self) -> frozenset[str]:
        """Modules that contribute nothing because a group of theirs is empty."""
        return emptied_modules(self.groups, self.kept)

    def survivors(self) -> dict[tuple[str, int], np.ndarray]:
        """The indices that stay, ascending, along each dimension (tensor, dim) that loses some."""
        stays: dict[tuple[str, int], np.ndarray] = {}
        for group in self.groups:
            removed = np.ones(group.units, dtype=bool)
            removed[list(self.kept[group.name])] = False
            for place in group.places:
                if place.dim is not None and removed.any():
                    extent = self.shapes[place.tensor][place.dim]
                    mask = stays.setdefault((place.tensor, place.dim), np.ones(extent, dtype=bool))
                    mask[place.index[removed]] = False
        return {key: np.flatnonzero(mask) for key, mask in stays.items()}

    def pruned_shapes(self) -> dict[str, tuple[int, ...]]:
        """`model_shapes` of the pruned model."""
        left = {name: list(shape) for name, shape in self.shapes.items() if not is_inside(name, *self.bypassed)}
        for (tensor, dim), index in self.survivors().items():
            if tensor in left:
                left[tensor][dim] = len(index)
        return {name: tuple(shape) for name, shape in left.items()}

    def remaining_groups(self) -> tuple[PruneGroup, ...]:
        """What is left of the groups that keep units, in the pruned model's indices."""
        survivors, left, gone = self.survivors(), self.pruned_shapes(), self.bypassed

        def moved(place: Place, kept: Sequence[int]) -> Place:
            index = place.index[list(kept)]
            if place.dim is not None and (stays := survivors.get((place.tensor, place.dim))) is not None:
                index = np.searchsorted(stays, index)
            return replace(place, index=index)

        return tuple(
            replace(
                group,
                units=len(kept),
                places=tuple(moved(place, kept) for place in group.places if place.tensor in left),
                norms=tuple(norm for norm in group.norms if not is_inside(norm.module, *gone)),
                attributes=tuple(number for number in group.attributes if not is_inside(number.module, *gone)),
                calls=tuple(call for call in group.calls if not is_inside(call.module, *gone)),
                alive_with=tuple(tensor for tensor in group.alive_with if tensor in left),
            )
            for group in self.groups
            if (kept := self.kept[group.name]) and not group.stands_inside(gone)
        )

    def then(self, second: "RemovalPlan") -> "RemovalPlan":
        """This plan, followed by another for the network it leaves, as one plan in this plan's indices.

        Raises:
            PlanError: `second` was made for another network, or cuts through units of this plan's groups.
        """
        check_shapes(second.shapes, self.pruned_shapes())
        groups, kept = composed(self, second)
        return replace(self, groups=groups, kept=emptied_together(groups, kept))

    def check_next(self, groups: Sequence[PruneGroup]) -> None:
        """Check that this plan can be followed by any for the network it leaves, whichever units of `groups` that cuts.

        Raises:
            PlanError: A unit of `groups` is a part of one of this plan's, or a place of it is.
        """
        check_whole_units(self, groups)

    def check(self, model: nn.Module) -> None:
        """Check that `model` is the dense model the plan was made for.

        Raises:
            PlanError: Names the first difference.
        """
        if self.form == GRAPH and not isinstance(model, torch.fx.GraphModule):
            what, hint = "the plan cuts the graph of a network", "l0prune.load opens what it has left"
            raise PlanError(what, got=type(model).__name__, expected="a torch.fx.GraphModule", hint=hint)
        shapes = model_shapes(model)
        check_shapes(self.shapes, shapes)
        check_groups(self.groups, shapes)
        for group in self.groups:
            given = {(call.module, name) for call in group.calls for name in call.attributes}
            for attribute in group.attributes:
                # Set by name after the cut: a plan from a file must set nothing else.
                module = _module(model, attribute.module, group)
                if (attribute.module, attribute.name) in given:
                    continue
                found = getattr(module, attribute.name, None)
                if type(found) is not int:
                    where = f"{group.name}, {attribute.module}.{attribute.name}"
                    raise PlanError("not a number of units", where=where, got=type(found).__name__)
            for bypass in group.bypasses:
                _module(model, bypass.module, group)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {
            "version": PLAN_VERSION,
            "groups": [group.to_json() for group in self.groups],
            "kept": {name: list(kept) for name, kept in self.kept.items()},
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            # Files of plans for modules are as they always were.
            **({} if self.form == MODULE else {"form": self.form}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RemovalPlan":
        """Read `to_json`'s object.

        Raises:
            PlanError: The object is malformed or of another version.
        """
        if not isinstance(data, Mapping) or data.get("version") != PLAN_VERSION:
            got = data.get("version") if isinstance(data, Mapping) else type(data).__name__
            raise PlanError("unknown plan version", got=got, expected=PLAN_VERSION)
        for key, form in (("groups", [dict]), ("kept", {str: [int]}), ("shapes", {str: [int]})):
            if not conforms(data.get(key), form):
                raise PlanError("malformed plan", where=key)
        if data.get("form", MODULE) not in (MODULE, GRAPH):
            raise PlanError("malformed plan", where="form", got=data["form"], expected=f"{MODULE} or {GRAPH}")
        for name, shape in data["shapes"].items():
            if min(shape, default=1) < 0:
                raise PlanError("malformed plan", where=f"shapes: {name}", got=shape)
        if (extent := sum(map(sum, data["shapes"].values()))) > _MOST_EXTENT:
            raise PlanError("malformed plan", where="shapes", got=f"{extent:,} in sum", expected=f"{_MOST_EXTENT:,}")
        return cls(
            groups=tuple(PruneGroup.from_json(group, data["shapes"]) for group in data["groups"]),
            kept={name: tuple(kept) for name, kept in data["kept"].items()},
            shapes={name: tuple(shape) for name, shape in data["shapes"].items()},
            form=data.get("form", MODULE),
        )


def _module(model: nn.Module, path: str, group: PruneGroup) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise PlanError("no such module in the model", where=f"{group.name}, {path}") from error


def check_shapes(expected: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[int, ...]]) -> None:
    """Compare two fingerprints.

    Raises:
        PlanError: Names the first difference.
    """
    for name in [*expected, *got]:
        if expected.get(name) != got.get(name):
            raise PlanError(
                "plan was made for another architecture",
                where=name,
                got=list(got[name]) if name in got else "no such tensor",
                expected=list(expected[name]) if name in expected else "no such tensor",
            )


def make_plan(
    groups: Sequence[PruneGroup], kept: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> RemovalPlan:
    """A plan in which groups around one bypassed block, and those inside it, are emptied together.

    Args:
        groups: The prune groups.
        kept: Kept units by group name.
        shapes: `model_shapes` of the dense model.
    """
    return RemovalPlan(groups=tuple(groups), kept=emptied_together(groups, kept), shapes=shapes)


def remember(model: nn.Module, plan: RemovalPlan) -> nn.Module:
    """Keep the plan on the model that it has pruned, so that another pruning of it can go on from there.

    As text: what `torch.save` writes of the model opens where l0prune is not installed.
    """
    text = json.dumps(plan.to_json())
    model._l0prune_plan = text  # type: ignore[assignment]
    if isinstance(model, torch.fx.GraphModule):
        # A copy of a graph has lost all else.
        model.meta[_IN_META] = text
    return model


def remembered(model: nn.Module) -> RemovalPlan | None:
    """The plan that has made a model, unless the model has been changed since."""
    text = getattr(model, "_l0prune_plan", None)
    if text is None and isinstance(model, torch.fx.GraphModule):
        text = model.meta.get(_IN_META)
    if not isinstance(text, str):
        return None
    plan = RemovalPlan.from_json(json.loads(text))
    return plan if plan.pruned_shapes() == model_shapes(model) else None


def plan_of(model: nn.Module) -> RemovalPlan:
    """The plan that has made a pruned model, in indices of the first dense one: what `save` takes.

    Args:
        model: What `prune`, `finalize()` or `load` returned.

    Raises:
        PlanError: The model was not pruned, or its shapes have changed since.
    """
    plan = remembered(model)
    if plan is None:
        hint = "it must be what prune(), finalize() or load() returned"
        raise PlanError("the model carries no plan", where=type(model).__name__, hint=hint)
    return plan
