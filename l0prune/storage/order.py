"""The order of the units of an elastic run, by which any size is cut out of its network."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np

from l0prune.errors import RunError
from l0prune.groups import PruneGroup
from l0prune.support import NUMBER, checked, read_json, write_json

ORDER_VERSION = 1
_FORM = {
    "version": int,
    **dict.fromkeys(("smallest", "largest"), NUMBER),
    "metric": str,
    "round_to": int,
    "uniform": bool,
    "limits": {str: [NUMBER]},
    "scores": {str: [NUMBER]},
    "files": [str],
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a cut goes by."""

    smallest: float
    """Share of the size of the smallest network that was trained."""
    largest: float
    metric: str
    """What the shares are of."""
    round_to: int
    uniform: bool
    limits: Mapping[str, Sequence[float]]
    """Floor and ceiling by name pattern, as in training."""
    scores: Mapping[str, Sequence[float]]
    """By group of the dense network, a number for each unit: the highest stay longest."""
    files: Sequence[str] = ()
    """What a run holds beside its network, by name: a cut needs it too."""

    def flat(self, groups: Sequence[PruneGroup], where: Path) -> np.ndarray:
        """The scores of all units (N,), group by group.

        Raises:
            RunError: They are not those of these groups.
        """
        for group in groups:
            got = len(self.scores.get(group.name, ()))
            if got != group.units:
                raise RunError(
                    "the order is not of this network",
                    where=f"{where}, {group.name}",
                    got=f"{got} units",
                    expected=group.units,
                )
        return np.concatenate([np.asarray(self.scores[group.name], dtype=np.float64) for group in groups])


def write_order(path: Path, order: Order) -> None:
    """Write `order.json`."""
    write_json(path, {"version": ORDER_VERSION, **asdict(order)})


def read_order(path: Path) -> Order:
    """Read `order.json`.

    Raises:
        RunError: There is none, or it is damaged.
    """
    if not isfile(path):
        hint = "train one with --set elastic.smallest=0.25, then cut that"
        raise RunError("not an elastic run: it has one size", where=path.parent, expected=path.name, hint=hint)
    content: dict[str, Any] = dict(checked(read_json(path), _FORM, path))
    if (version := content.pop("version")) != ORDER_VERSION:
        raise RunError("order of another version", where=path, got=version, expected=ORDER_VERSION)
    if not 0 < content["smallest"] < content["largest"] <= 1:
        got = f"{content['smallest']} to {content['largest']}"
        raise RunError("damaged file", where=path, got=got, expected="shares of the size")
    if not all(isfinite(score) for scores in content["scores"].values() for score in scores):
        raise RunError("damaged file", where=path, got="a score that is no number")
    return Order(**{name: content[name] for name in Order.__dataclass_fields__})
