"""What widths are multiples of where nobody says: a network must not get slower by getting smaller.

Libraries of kernels work on blocks of channels. Widths such as 127 or 209 fall between them: they are padded, or
computed by another, slower kernel.

- CPUs: onnxruntime and oneDNN block channels by 8 (AVX2) or 16 (AVX-512).
- NVIDIA's tensor cores take half precision in multiples of 8 and TF32 in multiples of 4; otherwise values are padded.
  Source: https://docs.nvidia.com/deeplearning/performance/dl-performance-fully-connected/, "Tensor Core requirements".
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from l0prune.groups import PruneGroup
from l0prune.size.polynomial import SizeModel, unit_sizes

RoundTo = int | Literal["auto"] | None
"""What widths are multiples of: a number, "auto", or None where nothing is said."""
BLOCK = 8
"""Channels, on every device that is known."""
_CHOICES = 8
"""A layer with fewer blocks than this loses too much by losing one."""
_MOST_LEFT = 0.01
"""Of the dense size: what may be left of the budget because no block fits in it any more."""


def rounding_for(
    round_to: RoundTo, groups: Sequence[PruneGroup], size: SizeModel, sparsity: float | None
) -> int | None:
    """What widths are to be multiples of.

    "auto" is 8 where most channels stand in layers that have 64 or more, and less where the target could not be met, or
    not to 1 % of the dense size.

    Args:
        round_to: What is asked for.
        groups: The prune groups.
        size: What the target counts.
        sparsity: Share of it to remove.
    """
    if round_to != "auto":
        return round_to
    widths = np.array([group.units * group.channels for group in groups if not group.owns_tensors])
    if not len(widths) or widths[widths >= _CHOICES * BLOCK].sum() < widths.sum() / 2:
        return 1
    budget = (1 - (sparsity or 0)) * size.total
    of_a_unit = unit_sizes(size)

    def fits(block: int) -> bool:
        pairs = zip(groups, of_a_unit, strict=True)
        smallest = min(group.step(block) * unit for group, unit in pairs if not group.owns_tensors)
        return size.floor_for(block) <= budget and smallest <= _MOST_LEFT * size.total

    return next((block for block in (BLOCK, BLOCK // 2, BLOCK // 4) if fits(block)), 1)


def width_facts(groups: Sequence[PruneGroup], kept: Mapping[str, int]) -> dict[str, int]:
    """How many widths there are after a cut, and how many of them are multiples of 8 and of 16, for the report.

    Args:
        groups: The groups that were cut.
        kept: Units that stay, by group; a block that is emptied has no width.
    """
    widths = [kept[group.name] * group.channels for group in groups if kept[group.name] and not group.owns_tensors]
    return {"widths": len(widths)} | {f"multiples_of_{n}": sum(not width % n for width in widths) for n in (8, 16)}
