"""How far outputs are from others where they cannot be equal: the noise beside the signal."""

import math

from l0prune.support import output_numbers


def relative_noise(expected: object, got: object) -> float:
    """The largest share that noise has of a signal, by root mean squares, over the tensors of two outputs.

    It is infinite where shapes differ or a value is not finite.

    Args:
        expected: What would be exact.
        got: What came out.
    """
    first, second = output_numbers(expected), output_numbers(got)
    if len(first) != len(second):
        return math.inf
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            return math.inf
        if a.numel() and a.is_floating_point():
            signal, noise = a.detach().double(), (a.detach().double() - b.detach().double())
            share = float(noise.square().mean().sqrt() / signal.square().mean().sqrt().clamp_min(1e-30))
            worst = max(worst, share if math.isfinite(share) else math.inf)
    return worst


def decibels(noise: float) -> float:
    """The signal-to-noise ratio of `relative_noise`, in dB; infinite where there is no noise."""
    return -20 * math.log10(noise) if noise else math.inf
