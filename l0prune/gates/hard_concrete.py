"""The Hard Concrete distribution (Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization").

Legend: N units. All functions are elementwise over a tensor of locations `log_alpha` (N,).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from l0prune.errors import ConfigError

_LOWEST_UNIFORM = 1e-6


@dataclass(frozen=True, kw_only=True)
class HardConcrete:
    """A stretched and clamped binary concrete distribution over [0, 1] with point masses at 0 and 1.

    Source: Louizos et al. 2018, eq. 10 to 12; DPHuBERT (arXiv 2305.17651), eq. 3 and 4.
    """

    temperature: float = 2 / 3
    """beta: how sharp the relaxation is."""
    low: float = -0.1
    """l, below 0: the interval before clamping begins here."""
    high: float = 1.1
    """r, above 1: the interval before clamping ends here."""

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.low < 0 and self.high > 1):
            raise ConfigError(
                "Hard Concrete gates out of range",
                got=f"temperature {self.temperature}, stretch ({self.low}, {self.high})",
                expected="temperature > 0, stretch low < 0 and high > 1",
            )

    @property
    def open_shift(self) -> float:
        """How far the logit of P(z != 0) lies above log_alpha: -beta log(-l / r)."""
        return -self.temperature * math.log(-self.low / self.high)

    def sample(self, log_alpha: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw z by the reparametrisation of eq. 3; differentiable where 0 < z < 1.

        Args:
            log_alpha: (N,) locations.
            generator: Source of the uniform draws; torch's global one by default.

        Returns:
            (N,) gate values in [0, 1].
        """
        return self.transform(log_alpha, self.noise(log_alpha, generator))

    def noise(self, log_alpha: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The uniform draws (N,) in (0, 1) that `sample` makes its gates of."""
        uniform = torch.rand(log_alpha.shape, dtype=log_alpha.dtype, device=log_alpha.device, generator=generator)
        return uniform.clamp(_LOWEST_UNIFORM, 1 - _LOWEST_UNIFORM)

    def transform(self, log_alpha: Tensor, uniform: Tensor) -> Tensor:
        """Eq. 3 for given uniform draws (N,) in (0, 1)."""
        v = torch.sigmoid((torch.logit(uniform) + log_alpha) / self.temperature)
        return ((self.high - self.low) * v + self.low).clamp(0, 1)

    def keep_probability(self, log_alpha: Tensor) -> Tensor:
        """P(z != 0) of eq. 4. log_alpha: (N,) -> (N,)."""
        return torch.sigmoid(log_alpha + self.open_shift)

    def mean(self, log_alpha: Tensor) -> Tensor:
        """E[z], to about 1e-6. log_alpha: (N,) -> (N,).

        E[z] is the integral of P(z > x) over 0 < x < 1, and P(z > x) is a logistic function of log_alpha.
        """
        # Midpoints: P(z > x) is smooth inside (0, 1) because the stretch keeps the logit away from its poles.
        count = 128
        x = (torch.arange(count, dtype=log_alpha.dtype, device=log_alpha.device) + 0.5) / count
        threshold = self.temperature * torch.logit((x - self.low) / (self.high - self.low))
        return torch.sigmoid(log_alpha[:, None] - threshold).mean(1)

    def published_mask(self, log_alpha: Tensor) -> Tensor:
        """sigmoid(0.8 log_alpha / beta), the value that CoFi's and DPHuBERT's code give a kept unit. (N,) -> (N,)."""
        return torch.sigmoid(0.8 * log_alpha / self.temperature)

    @staticmethod
    def location(drop_rate: float) -> float:
        """The log_alpha that the published code starts from for a drop rate in (0, 1): its logit of staying."""
        return math.log(1 - drop_rate) - math.log(drop_rate)
