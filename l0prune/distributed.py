"""torch.distributed glue: one run in several processes, started by torchrun. The training loop stays the same.

Legend: N processes; each is told by its rank, 0 to N - 1.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from l0prune.errors import DataError, FailedElsewhere, TrainingError
from l0prune.support import flattened, unflattened

S = TypeVar("S")
T = TypeVar("T")

_BUCKET = 2**24
"""Elements that are averaged in one message."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of this run."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0


def world() -> World:
    """This process among those of its run; alone where there are no others."""
    if dist.is_available() and dist.is_initialized():
        return World(rank=dist.get_rank(), size=dist.get_world_size())
    return World()


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started together; without torchrun, or in a group already, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ or dist.is_initialized():
        yield world()
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Both: what is agreed on from step to step must not wait for the GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    try:
        yield world()
    finally:
        dist.destroy_process_group()


def agree(error: Exception | None, flags: Sequence[int] = ()) -> list[int]:
    """Fail in all processes if one has failed; else the largest of each flag over all.

    Args:
        error: What went wrong in this process.
        flags: Whole numbers, 0 or more.

    Raises:
        Exception: This process's error, where it is the first.
        FailedElsewhere: Another process's error came first.
    """
    if world().size == 1:
        if error is not None:
            raise error
        return list(flags)
    raised = torch.tensor([error is not None, *flags], dtype=torch.int64)
    _collective(lambda: dist.all_reduce(raised, op=dist.ReduceOp.MAX))
    failed, *largest = raised.tolist()
    if failed:
        said: list[str | None] = [None] * world().size
        _collective(lambda: dist.all_gather_object(said, None if error is None else str(error)))
        first = next(rank for rank, text in enumerate(said) if text is not None)
        if error is not None and first == world().rank:
            raise error
        raise FailedElsewhere("another process failed", where=f"rank {first}", got=said[first])
    return largest


def together(run: Callable[[], T]) -> T:
    """What `run()` returns; fails in all processes if it fails in one, as `agree` does."""
    result, error = None, None
    try:
        result = run()
    except Exception as failure:
        error = failure
    agree(error)
    return result  # type: ignore[return-value]


def shared_out(items: Sequence[S], run: Callable[[S], T]) -> list[T]:
    """What `run` returns for every item, in their order, in every process: each process runs one in N of them.

    Args:
        items: The same in every process.
        run: Returns what can be pickled, rather small; fails in all processes if it fails in one, as `agree` does.
    """
    me = world()
    mine = together(lambda: [run(item) for item in items[me.rank :: me.size]])
    if me.size == 1:
        return mine
    found: list[list[T]] = [[]] * me.size
    _collective(lambda: dist.all_gather_object(found, mine))
    return [found[number % me.size][number // me.size] for number in range(len(items))]


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over all processes, in place."""
    size = world().size
    if size == 1:
        return
    buckets: dict[tuple[torch.dtype, torch.device], list[list[Tensor]]] = {}
    for tensor in tensors:
        kept = buckets.setdefault((tensor.dtype, tensor.device), [[]])
        if sum(t.numel() for t in kept[-1]) >= _BUCKET:
            kept.append([])
        kept[-1].append(tensor)
    for bucket in (bucket for kept in buckets.values() for bucket in kept):
        flat = flattened(bucket)
        _collective(lambda flat=flat: dist.all_reduce(flat))
        for tensor, mean in zip(bucket, unflattened(flat.div_(size), bucket), strict=True):
            tensor.copy_(mean)


def from_main(tensor: Tensor) -> Tensor:
    """The main process's tensor of this shape and dtype, in every process."""
    if world().size > 1:
        _collective(lambda: dist.broadcast(tensor, src=0))
    return tensor


def check_same(value: str, what: str) -> None:
    """Check that all processes hold one value.

    Args:
        value: A fingerprint, say.
        what: What it is of, for the message: "data", say.

    Raises:
        DataError: They do not; in the main process.
        FailedElsewhere: In the others.
    """
    if world().size == 1:
        return
    values: list[str] = [""] * world().size
    _collective(lambda: dist.all_gather_object(values, value))
    other = next((rank for rank, one in enumerate(values) if one != values[0]), None)
    if other is not None:
        hint = "give every process the same files and settings"
        agree(DataError(f"processes see different {what}", where=f"ranks 0 and {other}", hint=hint))


def _collective(run: Callable[[], object]) -> None:
    try:
        run()
    except RuntimeError as error:
        hint = "see its own message; go on with --resume"
        got = " ".join(str(error).split())[-200:]
        raise TrainingError(
            "another process of the run is gone", where=f"rank {world().rank}", got=got, hint=hint
        ) from error
