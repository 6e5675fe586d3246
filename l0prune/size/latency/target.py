"""From a time that is asked for to a share of the dense one."""

from l0prune.errors import ConfigError, TargetError
from l0prune.size.latency.fit import MS
from l0prune.size.latency.model import LatencyModel
from l0prune.size.wish import Wish
from l0prune.support import plain

_LEAST = 0.01
"""Share of the model's total that is removed where it promises the target from the start."""


def sparsity_for(latency: LatencyModel, wish: Wish) -> tuple[float, float]:
    """What a wish removes.

    Returns:
        The share of the dense latency as measured, and the share of the latency model's total that amounts to it.

    Raises:
        TargetError: No plan is as fast as asked; says what can be reached on this device.
    """
    dense = latency.dense_ms * MS
    floor, total = latency.size.floor_for(latency.round_to), latency.size.total
    if floor > total * (1 - _LEAST):
        raise TargetError(
            "the time does not depend on the widths",
            got=f"{latency.size.shown(floor)} of {latency.size.shown(total)} ms without all that can go",
            hint="measure larger inputs (a larger batch, longer ones), or prune for the metric macs or params",
        )
    fastest = floor / dense
    if wish.speedup is not None:
        left = 1 / wish.speedup
    elif wish.ms is not None:
        left = wish.ms / latency.dense_ms
        if left >= 1 and not wish.alone:
            # One of several targets, which asks for nothing.
            return 1 - left, 1 - left
        if left >= 1:
            hint = "there is nothing to remove: ask for less time"
            raise TargetError(
                "dense network is as fast",
                got=f"{plain(wish.ms)} ms",
                expected=f"below {plain(latency.dense_ms)} ms",
                hint=hint,
            )
    elif wish.sparsity is not None:
        left = 1 - wish.sparsity
    else:
        raise ConfigError("no target", expected="a share to remove, a speedup or milliseconds")
    if left < fastest:
        got = f"{1 / left:.2f} times faster, {plain(left * latency.dense_ms)} ms"
        expected = f"at most {1 / fastest:.2f} times, {plain(fastest * latency.dense_ms)} ms, on this device"
        hint = "ask for less, prune more kinds of unit, or measure larger inputs (a larger batch, longer ones)"
        raise TargetError("latency target cannot be met", got=got, expected=expected, hint=hint)
    return 1 - left, max(_LEAST, 1 - left * dense / total)
