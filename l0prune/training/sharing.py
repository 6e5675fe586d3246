"""How the processes of a run share its batches: as much data a step whatever their number."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from l0prune.config import RunConfig
from l0prune.distributed import World, world
from l0prune.errors import ConfigError

Batches = Callable[[int], Iterator[Any]]


@runtime_checkable
class Shareable(Protocol):
    """Batches that know how to give a process its share."""

    def share(self, *, rank: int, world_size: int, split: int) -> Batches:
        """Every `world_size`-th batch from number `rank` on, of batches a `split`-th as large."""
        ...


def split_for(processes: World, config: RunConfig) -> int:
    """Into how many parts each batch must come, so that every process gets as many micro-batches a step as the others.

    Args:
        processes: Those of the run.
        config: Says how many micro-batches make a step in either stage.
    """
    together = math.gcd(config.joint.micro_batches, config.further.micro_batches)
    return processes.size // math.gcd(processes.size, together)


def shared(batches: Batches, split: int) -> Batches:
    """This process's share of a task's batches.

    Args:
        batches: From a batch number on.
        split: Into how many parts each comes.

    Raises:
        ConfigError: They must be split and cannot be.
    """
    processes = world()
    if isinstance(batches, Shareable):
        return batches.share(rank=processes.rank, world_size=processes.size, split=split)
    if split > 1:
        raise ConfigError(
            "micro-batches cannot be shared out",
            got=f"{processes.size} processes",
            hint=f"let micro_batches of both stages be multiples of {processes.size}",
        )
    if processes.size == 1:
        return batches
    return lambda position: itertools.islice(
        batches(position * processes.size + processes.rank), 0, None, processes.size
    )
