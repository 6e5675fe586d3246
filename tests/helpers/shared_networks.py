"""Networks that torch-pruning and l0prune both know, and their inputs."""

from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
HEADS = 3


class Residual(nn.Module):
    """A stem, a residual block and a strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.first, self.middle = nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.second = nn.Conv2d(24, 16, 3, padding=1)
        self.down, self.last = nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.second(F.relu(self.middle(self.first(x)))))
        return self.head(F.relu(self.last(self.down(x))).mean((2, 3)))


class Grouped(nn.Module):
    """A grouped convolution, a depthwise one, a GroupNorm, and PReLUs with a weight a channel and with one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.one = nn.Conv2d(3, 16, 3, padding=1), nn.PReLU()
        self.b, self.n = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16)
        self.c, self.g, self.p = nn.Conv2d(16, 12, 1), nn.GroupNorm(3, 12), nn.PReLU(12)
        self.d, self.w = nn.Conv2d(12, 10, 1), nn.Conv2d(10, 10, 3, groups=10, padding=1)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.n(self.b(self.one(self.a(x)))))
        return self.head(F.relu(self.w(self.d(self.p(self.g(self.c(x)))))).mean((2, 3)))


class Halves(nn.Module):
    """A convolution whose halves go to two layers. They must stay equally large, which torch-pruning does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.a(x).chunk(2, dim=1)
        return self.head(torch.cat([self.b(F.relu(one)), self.c(two)], 1).mean((2, 3)))


class Tied(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.c.weight = self.b.weight
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head((self.b(F.relu(x)) + self.c(x)).mean((2, 3)))


def vision_transformer() -> nn.Module:
    """timm's, whose queries, keys and values come from one projection; class token and positions are parameters."""
    name = "vit_tiny_patch16_224"
    return timm.create_model(
        name, img_size=16, patch_size=8, depth=2, embed_dim=24, num_heads=HEADS, num_classes=5, init_values=0.5
    )


def heads_of(model: nn.Module) -> dict[nn.Module, int]:
    """`num_heads` as torch-pruning takes it."""
    return {module: HEADS for name, module in model.named_modules() if name.endswith("qkv")}


@torch.no_grad()
def settled(make: Callable[[], nn.Module]) -> nn.Module:
    """In evaluation mode and with no parameter or statistic at a value where an error could hide."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and tensor.ndim < 2:
            tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
            if name.endswith("running_var"):
                tensor.abs_()
    return model.eval()
