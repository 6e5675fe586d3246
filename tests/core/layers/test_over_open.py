"""A statistic over open channels is the plain one of the cut tensor, by whatever names its arguments are given."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from l0prune.layers.over_open import OverOpen

OPENED = torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 0], dtype=torch.float64)
OPEN = OPENED.bool()

STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(-1),
    "sum of all": lambda x: x.sum(),
    "mean": lambda x: torch.mean(x, (1, 2), True),
    "mean of all": lambda x: x.mean(),
    "numpy's mean": lambda x: x.mean(axis=-1, keepdims=True),
    "mean in another dtype": lambda x: x.mean(-1, dtype=torch.float32),
    "variance": lambda x: x.var(-1, correction=0),
    "biased variance of all": lambda x: x.var(False),
    "numpy's variance": lambda x: x.var(axis=2),
    "deviation": lambda x: torch.std(x, 2, True),
    "norm": lambda x: x.norm(dim=-1),
    "length": lambda x: torch.linalg.norm(x, dim=-1),
    "vector norm": lambda x: torch.linalg.vector_norm(x, ord=3, dim=(1, 2)),
    "maximum": lambda x: x.amax(axis=-1),
    "maximum of all": torch.amax,
    "minimum": lambda x: x.amin(-1, keepdim=True),
}
ALONG: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "softmax in another dtype": lambda x: torch.softmax(x, -1, torch.float32),
    "functional softmax": lambda x: F.softmax(x, dim=-1, dtype=torch.float32),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "layer norm": lambda x: F.layer_norm(x, (x.shape[-1],)),
    "layer norm of torch": lambda x: torch.layer_norm(x, (x.shape[-1],), cudnn_enable=False),
}


@pytest.mark.parametrize("name", [*STATISTICS, *ALONG])
def test_over_open_channels_is_over_the_cut_tensor(name: str) -> None:
    x = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 2
    function = {**STATISTICS, **ALONG}[name]
    with OverOpen(OPENED, -1):
        got = function(x)
    expected = function(x[..., OPEN])
    torch.testing.assert_close(got[..., OPEN] if name in ALONG else got, expected, atol=1e-6, rtol=1e-6)


def test_a_spectral_norm_and_a_given_place_are_left_to_torch() -> None:
    x, place = torch.randn(3, 5, 8), torch.empty(3, 5)
    for function in (lambda: torch.linalg.norm(x, 2, (1, 2)), lambda: torch.sum(x, -1, out=place)):
        plain = function().clone()
        with OverOpen(OPENED, -1):
            assert torch.equal(function(), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_counts_wrong(dtype: torch.dtype) -> None:
    opened = torch.ones(3001)
    opened[2999:] = 0
    x = torch.full((2, 3001), 100.0, dtype=dtype)
    x[:, ::2] = 60
    with OverOpen(opened, -1):
        mean, variance = x.mean(-1), x.var(-1)
    for got, expected in ((mean, x[:, :2999].mean(-1)), (variance, x[:, :2999].var(-1))):
        torch.testing.assert_close(got, expected, atol=0, rtol=torch.finfo(dtype).eps)


def test_an_error_within_leaves_functions_as_they_are() -> None:
    x = torch.randn(4, 8)
    with pytest.raises(RuntimeError), OverOpen(OPENED, -1):
        x.mean(-1) @ x.mT
    assert torch.equal(x.mean(-1), x.sum(-1) / 8)
