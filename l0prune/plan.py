"""The removal plan: which units are kept, in the dense model's own indices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from l0prune.errors import PlanError
from l0prune.groups import PruneGroup, check_groups, conforms

PLAN_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class RemovalPlan:
    """Kept units per group, with all that applying them to the dense model takes."""

    groups: tuple[PruneGroup, ...]
    kept: Mapping[str, tuple[int, ...]]
    """Kept units by group name, ascending, in the dense model's indices."""
    shapes: Mapping[str, tuple[int, ...]]
    """Fingerprint of the dense model: the shape of every parameter and buffer, by name."""

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
            if len(kept) < group.least_units:
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
        return frozenset(group.bypass.module for group in self.groups if group.bypass and not self.kept[group.name])

    def check(self, model: nn.Module) -> None:
        """Check that `model` is the dense model the plan was made for.

        Raises:
            PlanError: Names the first difference.
        """
        shapes = model_shapes(model)
        for name in [*self.shapes, *shapes]:
            expected, got = self.shapes.get(name), shapes.get(name)
            if expected != got:
                raise PlanError(
                    "plan was made for another architecture",
                    where=name,
                    got="no such tensor" if got is None else list(got),
                    expected="no such tensor" if expected is None else list(expected),
                )
        check_groups(self.groups, shapes)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {
            "version": PLAN_VERSION,
            "groups": [group.to_json() for group in self.groups],
            "kept": {name: list(kept) for name, kept in self.kept.items()},
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
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
        return cls(
            groups=tuple(PruneGroup.from_json(group) for group in data["groups"]),
            kept={name: tuple(kept) for name, kept in data["kept"].items()},
            shapes={name: tuple(shape) for name, shape in data["shapes"].items()},
        )


def make_plan(
    groups: Sequence[PruneGroup], kept: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> RemovalPlan:
    """A plan in which groups around one bypassed block are emptied together.

    Args:
        groups: The prune groups.
        kept: Kept units by group name.
        shapes: `model_shapes` of the dense model.
    """
    empty = {group.bypass.module for group in groups if group.bypass and not kept[group.name]}
    together = {
        group.name: () if group.bypass and group.bypass.module in empty else kept[group.name] for group in groups
    }
    return RemovalPlan(groups=tuple(groups), kept=together, shapes=shapes)


def model_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and buffer, by name."""
    return {name: tuple(tensor.shape) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
