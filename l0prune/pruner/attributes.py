"""What a cut has to mend beside the weights, chosen by proof where values alone do not say it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from l0prune.discovery import Discovery, classes_around
from l0prune.example import Observe
from l0prune.groups import Attribute, PruneGroup
from l0prune.proof import prove_on_copy
from l0prune.pruner.sizing import sized_where_needed


@dataclass(frozen=True)
class _Choice:
    """Which of the attributes that may count a group's units do, and whether modules around it keep their sizes."""

    attributes: tuple[Attribute, ...]
    keeps_sizes: bool


def proved_with_attributes(
    model: nn.Module, found: Discovery, observe: Observe, tolerance: float
) -> tuple[Discovery, dict[str, str], list[str]]:
    """Prove groups with the attributes that discovery took for counts of their units, or with fewer where that fails.

    A number on a module may equal the number of units by chance: in an attention with 4 heads of width 4, does `head`
    count heads? And a cut may go wrong without an error where a method lays units out by a number that nothing mends.
    A group that fails is tried with other choices, in the order of `_choices`; what is proved first stays.

    Args:
        model: The model; it is left as it is.
        found: What can be pruned, before any module keeps sizes.
        observe: Runs a model on example inputs.
        tolerance: Largest relative difference allowed.

    Returns:
        The groups with their attributes and with the calls whose sizes modules keep; reasons against groups, by name;
        remarks.
    """
    sized = sized_where_needed(model, found, observe)
    faults, notes = prove_on_copy(model, sized.groups, observe, tolerance)
    by_name = {group.name: group for group in found.groups}
    kinds: set[type] = set()
    choices = {name: list(_choices(by_name[name], found)) for name in faults}
    # All groups take their turns together: networks repeat their layers, so that a few proofs serve them all.
    for turn in range(max(map(len, choices.values()), default=0)):
        now = {name: those[turn] for name, those in choices.items() if name in faults and turn < len(those)}
        keeping = [by_name[name] for name, choice in now.items() if choice.keeps_sizes]
        kinds_now = kinds | classes_around(keeping, found.sized)
        attributes = {name: choice.attributes for name, choice in now.items()}
        groups = tuple(replace(g, attributes=attributes.get(g.name, g.attributes)) for g in found.groups)
        candidate = sized_where_needed(model, replace(found, groups=groups), observe, kinds=kinds_now)
        if _mended(candidate) == _mended(sized):
            continue
        left, notes_now = prove_on_copy(model, candidate.groups, observe, tolerance)
        # The accepted groups are exact together: a choice that costs another group is none.
        if left.keys() < faults.keys():
            better = faults.keys() - left.keys()
            groups = tuple(
                replace(g, attributes=attributes[g.name]) if g.name in better and g.name in attributes else g
                for g in found.groups
            )
            found, sized, faults, notes, kinds = replace(found, groups=groups), candidate, left, notes_now, kinds_now
    return sized, faults, notes


def _mended(found: Discovery) -> list[tuple[object, ...]]:
    return [(*group.attributes, *group.calls) for group in found.groups]


def _choices(group: PruneGroup, found: Discovery) -> Iterator[_Choice]:
    """Other choices for a group that fails: no attribute, each alone, and then sizes that modules keep."""
    if group.attributes:
        yield _Choice((), False)
    if len(group.attributes) > 1:
        yield from (_Choice((attribute,), False) for attribute in group.attributes)
    if classes_around([group], found.sized):
        yield _Choice(group.attributes, True)
        if group.attributes:
            yield _Choice((), True)
