"""What trying out a norm has shown holds for norms that compute alike, and for no other."""

from unittest import mock

import torch
from torch import Tensor, nn

from l0prune.layers import is_rms_norm


class ScaledNorm(nn.Module):
    """An RMS norm if its scale is 1."""

    def __init__(self, width: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight, self.eps, self.scale = nn.Parameter(torch.ones(width)), 1e-6, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


def test_modules_that_are_alike_are_tried_once() -> None:
    class CountedNorm(ScaledNorm):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            CountedNorm.runs += 1
            return super().forward(x)

    assert all(is_rms_norm(CountedNorm(8)) for _ in range(2))
    once = CountedNorm.runs
    assert once
    other = CountedNorm(8)
    other.weight.data *= 3
    assert is_rms_norm(other)
    assert CountedNorm.runs == once
    assert is_rms_norm(CountedNorm(16))
    assert CountedNorm.runs > once


def test_what_makes_a_difference_is_tried() -> None:
    assert is_rms_norm(ScaledNorm(8))
    assert not is_rms_norm(ScaledNorm(8, 2.0))
    hooked, patched, helped = ScaledNorm(8), ScaledNorm(8), ScaledNorm(8)
    hooked.register_forward_hook(lambda module, args, out: 2 * out)
    patched.forward = lambda x: x  # type: ignore[method-assign]
    helped.scale = torch.tensor(2.0)  # type: ignore[assignment]
    assert not any(map(is_rms_norm, (hooked, patched, helped)))
    with mock.patch.object(ScaledNorm, "forward", lambda self, x: x):
        assert not is_rms_norm(ScaledNorm(8))
    assert is_rms_norm(ScaledNorm(8))


def test_a_failure_is_not_kept() -> None:
    class FailingNorm(ScaledNorm):
        fails = True

        def forward(self, x: Tensor) -> Tensor:
            if FailingNorm.fails:
                raise RuntimeError("out of memory")
            return super().forward(x)

    assert not is_rms_norm(FailingNorm(8))
    FailingNorm.fails = False
    assert is_rms_norm(FailingNorm(8))
