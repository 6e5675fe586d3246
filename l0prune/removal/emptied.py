"""Which modules go with empty groups, and which groups with these modules."""

from collections.abc import Iterable, Mapping, Sequence

from l0prune.groups import PruneGroup


def emptied_modules(groups: Iterable[PruneGroup], kept: Mapping[str, Sequence[int]]) -> frozenset[str]:
    """Modules that contribute nothing because a group of theirs is empty.

    Args:
        groups: The prune groups.
        kept: Kept units by group name.
    """
    return frozenset(bypass.module for group in groups if not kept[group.name] for bypass in group.bypasses)


def emptied_together(groups: Sequence[PruneGroup], kept: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Kept units by group name, where groups around one emptied block are empty, and those that stand inside it.

    Args:
        groups: The prune groups.
        kept: Kept units by group name, as they were chosen.
    """
    together = dict(kept)
    while True:
        gone = emptied_modules(groups, together)
        more = [
            group.name
            for group in groups
            if together[group.name] and ((group.bypass and group.bypass.module in gone) or group.stands_inside(gone))
        ]
        if not more:
            return together
        together.update(dict.fromkeys(more, ()))
