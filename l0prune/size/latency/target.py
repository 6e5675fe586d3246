"""From a time that is asked for to a share of the dense one."""

from l0prune.config import RunConfig
from l0prune.errors import TargetError
from l0prune.size.latency.fit import TICKS
from l0prune.size.latency.model import LatencyModel

_LEAST = 0.01
"""Share of the model's total that is removed where it promises the target from the start."""


def sparsity_for(latency: LatencyModel, config: RunConfig) -> tuple[float, float]:
    """What a run's target removes.

    Returns:
        The share of the dense latency as measured, and the share of the latency model's total that amounts to it.

    Raises:
        TargetError: No plan is as fast as asked; says what can be reached on this device.
    """
    dense = latency.dense_ms / 1000 * TICKS
    fastest = latency.size.floor_for(latency.round_to) / dense
    if config.target_speedup is not None:
        left = 1 / config.target_speedup
    elif config.target_ms is not None:
        left = config.target_ms / latency.dense_ms
        if left >= 1:
            hint = "there is nothing to remove"
            raise TargetError(
                "dense network is as fast",
                got=f"{config.target_ms} ms",
                expected=f"below {latency.dense_ms:.1f} ms",
                hint=hint,
            )
    else:
        left = 1 - config.target_sparsity
    if left < fastest:
        got = f"{1 / left:.2f} times faster, {left * latency.dense_ms:.1f} ms"
        expected = f"at most {1 / fastest:.2f} times, {fastest * latency.dense_ms:.1f} ms, on this device"
        raise TargetError("latency target cannot be met", got=got, expected=expected, hint="prune more kinds of unit")
    return 1 - left, max(_LEAST, 1 - left * dense / latency.size.total)
