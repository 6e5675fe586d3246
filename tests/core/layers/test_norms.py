"""A gated norm over the open channels is the plain norm of the cut tensor."""

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from l0prune import GroupError
from l0prune.layers.norms import GatedNorm, open_norm

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
    assert torch.autograd.gradgradcheck(norm, inputs)


@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 8)])
@pytest.mark.parametrize("affine", [True, False])
def test_the_dense_kernel_over_filled_channels_is_the_formula(shape: tuple[int, ...], affine: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    inputs = [x.requires_grad_(), *(torch.randn(8, dtype=torch.float64).requires_grad_() for _ in range(2 * affine))]
    found = []
    for plain in (True, False):
        with mock.patch("l0prune.layers.open_norms.operators_are_plain", lambda plain=plain: plain):
            y = open_norm(inputs[0], OPENED, *inputs[1:])
        # Nothing reads closed channels.
        found.append([y[..., OPEN], *torch.autograd.grad((y * weights)[..., OPEN].sum(), inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize(
    ("norm", "shape", "dim"),
    [
        (nn.LayerNorm(8), (3, 5, 8), -1),
        (nn.LayerNorm(8, elementwise_affine=True, bias=False), (3, 8), -1),
        (nn.RMSNorm(8), (3, 5, 8), -1),
        (nn.RMSNorm(8, eps=1e-3), (3, 8), -1),
        (nn.GroupNorm(1, 8), (3, 8, 5), 1),
        (nn.GroupNorm(2, 8, eps=1e-2), (3, 8), 1),
        (nn.GroupNorm(8, 8), (3, 8, 5, 2), 1),
        (nn.GroupNorm(4, 8, affine=False), (3, 8, 5), 1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_all_channels_open_is_the_plain_norm_in_values_gradients_and_dtype(
    norm: nn.Module, shape: tuple[int, ...], dim: int, dtype: torch.dtype
) -> None:
    norm = randomised(norm).to(dtype)
    x = (torch.randn(shape, dtype=torch.float64) + 2).to(dtype).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    gated = GatedNorm(norm, lambda training: torch.ones(8, dtype=dtype), dim)
    expected, got = norm(x), gated(twin)
    assert got.dtype == expected.dtype
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)
    weights = torch.randn(shape, dtype=torch.float64).to(dtype)
    (expected * weights).sum().backward()
    (got * weights).sum().backward()
    torch.testing.assert_close(twin.grad, x.grad, atol=tolerance, rtol=tolerance)


def test_group_norm_with_a_group_for_each_channel_needs_no_gate() -> None:
    norm, x = randomised(nn.GroupNorm(8, 8)), torch.randn(3, 8, 5, dtype=torch.float64) + 2
    expected = cut(norm, nn.GroupNorm(5, 5))(x[:, OPEN])
    torch.testing.assert_close(norm(x)[:, OPEN], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(gate(norm, 1)(x)[:, OPEN], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("norm", "dim"), [(nn.LayerNorm(8), -1), (nn.RMSNorm(8), -1), (nn.GroupNorm(1, 8), 1)])
def test_autocast_normalises_in_float32_and_gives_the_dtype_that_torch_gives(norm: nn.Module, dim: int) -> None:
    x = torch.randn(4, 8).bfloat16().requires_grad_()
    gated = GatedNorm(norm, lambda training: torch.ones(8), dim)
    with torch.autocast("cpu", torch.bfloat16):
        got = gated(x)
        assert got.dtype == nn.functional.layer_norm(x, (8,)).dtype
    # Rounded once, from float32.
    assert torch.equal(got, gated(x.float()).to(got.dtype))
    torch.testing.assert_close(got.float(), norm(x.float()), atol=0.02, rtol=0.02)
    got.pow(2).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("norm", "dim"), [(nn.LayerNorm(8), -1), (nn.RMSNorm(8), -1), (nn.GroupNorm(1, 8), 1)])
def test_autocast_takes_no_sum_in_half_precision(norm: nn.Module, dim: int) -> None:
    opened = OPENED.float()
    x = torch.randn(4, 8).bfloat16()
    gated = GatedNorm(norm, lambda training: opened, dim)
    with torch.autocast("cpu", torch.bfloat16):
        one = x.clone().requires_grad_()
        got = gated(one)
    other = x.clone().requires_grad_()
    expected = gated(other)
    assert torch.equal(got, expected)
    for y in (got, expected):
        y.float().pow(2).sum().backward()
    assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [nn.BatchNorm1d(8), nn.LayerNorm((2, 8)), nn.Linear(8, 8)])
def test_other_kinds_are_refused(bad: nn.Module) -> None:
    with pytest.raises(GroupError, match="cannot gate"):
        gate(bad, -1)


@pytest.mark.parametrize("is_wide", [True, False])
def test_autocast_gives_the_dtype_that_an_rms_norm_of_another_class_gives(is_wide: bool) -> None:
    class OwnRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.linspace(0.5, 1.5, 8)), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
            return self.weight * y.to(x.dtype) if is_wide else (self.weight * y).to(x.dtype)

    norm, x = OwnRMSNorm(), torch.randn(4, 8).bfloat16()
    gated = GatedNorm(norm, lambda training: torch.ones(8), -1)
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = gated(x), norm(x)
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, atol=0.02, rtol=0.02)
    assert gated.bfloat16()(x).dtype == torch.bfloat16


def test_what_a_gated_norm_gives_may_be_changed_in_place() -> None:
    norm, x = randomised(nn.LayerNorm(8)), torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    gated = gate(norm, -1)
    found = []
    for activate in (nn.Hardswish(), nn.Hardswish(inplace=True)):
        activate(gated(x))[..., OPEN].square().sum().backward()
        found.append(x.grad)
        x.grad = None
    torch.testing.assert_close(found[1], found[0], atol=0, rtol=0)
