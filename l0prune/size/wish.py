"""What a caller asks of a size: a share to remove, a time, or the most that may be left."""

from dataclasses import dataclass

from l0prune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a caller asks for: one of the first four."""

    sparsity: float | None = None
    """Share to remove, in (0, 1)."""
    speedup: float | None = None
    """How many times faster."""
    ms: float | None = None
    """Milliseconds on the subject's input."""
    most: float | None = None
    """The largest size, as the metric counts it."""
    alone: bool = True
    """Whether this is the only target: one of several may be met by the dense network already."""

    @classmethod
    def of(
        cls,
        *,
        target_sparsity: float | None,
        target_ms: float | None = None,
        target_speedup: float | None = None,
        target: object = None,
    ) -> "Wish | None":
        """The one that is given; None where it is `target`, which is of several metrics.

        Raises:
            ConfigError: None is, or several are.
        """
        asked = {"target_sparsity": target_sparsity, "target_ms": target_ms, "target_speedup": target_speedup}
        given = [name for name, value in (asked | {"target": target}).items() if value is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            expected = "target_sparsity, or with the metric latency target_ms or target_speedup, or target={...}"
            raise ConfigError("give one target", got=got, expected=expected)
        if target is not None:
            return None
        return cls(sparsity=target_sparsity, ms=target_ms, speedup=target_speedup)
