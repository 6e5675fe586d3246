"""A gated norm over the open channels is the plain norm of the cut tensor."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from l0prune.gated_norms import GatedNorm, open_norm

OPENED = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
OPEN = OPENED.bool()


def randomised(norm: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    norm = norm.double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def gate(norm: nn.Module, channel_dim: int) -> GatedNorm:
    return GatedNorm(norm, lambda training: OPENED, channel_dim)


def cut(norm: nn.Module, smaller: nn.Module) -> nn.Module:
    for name, parameter in norm.named_parameters():
        setattr(smaller, name, nn.Parameter(parameter.detach()[OPEN]))
    return smaller


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_last_dimension(kind: Callable[[int], nn.Module]) -> None:
    norm, x = randomised(kind(8)), torch.randn(3, 5, 8, dtype=torch.float64) + 2
    torch.testing.assert_close(gate(norm, -1)(x)[..., OPEN], cut(norm, kind(5))(x[..., OPEN]), atol=1e-12, rtol=0)


def test_channels_before_time() -> None:
    norm, x = randomised(nn.LayerNorm(8)), torch.randn(3, 8, 5, dtype=torch.float64) + 2
    expected = cut(norm, nn.LayerNorm(5))(x[:, OPEN].mT).mT
    torch.testing.assert_close(gate(norm, -2)(x)[:, OPEN], expected, atol=1e-12, rtol=0)


def test_group_norm_with_one_group() -> None:
    norm, x = randomised(nn.GroupNorm(1, 8)), torch.randn(3, 8, 5, 2, dtype=torch.float64) + 2
    expected = cut(norm, nn.GroupNorm(1, 5))(x[:, OPEN])
    torch.testing.assert_close(gate(norm, 1)(x)[:, OPEN], expected, atol=1e-12, rtol=0)


def test_group_norm_with_equal_cuts_in_each_group() -> None:
    opened = torch.tensor([1.0, 0, 1, 1, 1, 1, 0, 1], dtype=torch.float64)
    norm, x = randomised(nn.GroupNorm(2, 8)), torch.randn(3, 8, 5, dtype=torch.float64) + 2
    smaller = nn.GroupNorm(2, 6)
    for name, parameter in norm.named_parameters():
        setattr(smaller, name, nn.Parameter(parameter.detach()[opened.bool()]))
    gated = GatedNorm(norm, lambda training: opened, 1)
    torch.testing.assert_close(gated(x)[:, opened.bool()], smaller(x[:, opened.bool()]), atol=1e-12, rtol=0)


def test_everything_open_is_the_plain_norm() -> None:
    norm, x = randomised(nn.LayerNorm(8)), torch.randn(3, 8, dtype=torch.float64)
    gated = GatedNorm(norm, lambda training: torch.ones(8, dtype=torch.float64), -1)
    torch.testing.assert_close(gated(x), norm(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("dim", [-1, -2])
def test_gradients_agree_with_finite_differences(dim: int, centred: bool) -> None:
    shape = (2, 3, 8) if dim == -1 else (2, 8, 3)
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=generator).requires_grad_()

    inputs = (draw(*shape), draw(8), draw(8))

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return open_norm(x, OPENED, weight, bias, dim=dim, centred=centred)

    assert torch.autograd.gradcheck(norm, inputs)


def test_half_precision_is_normalised_in_float32() -> None:
    x = torch.randn(4, 8).bfloat16()
    assert open_norm(x, OPENED.float()).dtype == torch.float32


def test_nothing_open_stays_finite() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    y = open_norm(x, torch.zeros(8))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
