"""What gating costs in a training loop of one's own: a gated step against a dense one, for small and deep networks.

    OMP_NUM_THREADS=1 python benchmarks/gating_own_loop.py                    # all networks
    OMP_NUM_THREADS=1 python benchmarks/gating_own_loop.py --only mlp_100x64

A step is forward, backward and optimizer; a gated one also has the penalty and `pruner.step()`. The two alternate, so
that drift of the machine cancels; the figure is the median of the pairs' ratios. Weights are random: time knows no
difference.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from l0bench.provenance import where
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune

ROOT = Path(__file__).parents[1]
BOUNDS = {"resnet18": 1.10, "mlp_100x64": 1.5, "mlp_60x16": 1.5, "normed_mlp_40x32": 1.5, "transformer_24": 1.5}
"""The largest ratio to a dense step that is wanted."""


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, with batch norms."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Stages of residual blocks on images of 32 x 32, as in He et al. 2016: the widths double, the images halve."""

    def __init__(self, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        layers, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Residual(inputs, width, 2 if stage and not block else 1))
                inputs = width
        self.blocks, self.head = nn.Sequential(*layers), nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, 32, 32) -> (B, 10)."""
        return self.head(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


def mlp(layers: int, width: int) -> nn.Module:
    """`layers` linear layers of one width with ReLU between them."""
    parts: list[nn.Module] = [nn.Linear(16, width), nn.ReLU()]
    for _ in range(layers - 2):
        parts += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, 10))


class NormedMLP(nn.Module):
    """Residual blocks of a norm, a wide and a narrow linear layer."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(16, width), nn.Linear(width, 10)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.wide = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.narrow = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 16) -> (B, 10)."""
        x = self.first(x)
        for norm, wide, narrow in zip(self.norms, self.wide, self.narrow, strict=True):
            x = x + narrow(F.relu(wide(norm(x))))
        return self.head(x)


class Transformer(nn.Module):
    """Encoder layers behind an input projection."""

    def __init__(self, layers: int, width: int, units: int) -> None:
        super().__init__()
        self.embed = nn.Linear(16, width)
        layer = nn.TransformerEncoderLayer(width, 4, units, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, 16) -> (B, 10)."""
        return self.head(self.encoder(self.embed(x)).mean(1))


def resnet18() -> nn.Module:
    """torchvision's, with ten classes."""
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (resnet18, (32, 3, 32, 32)),
    "resnet18_cifar": (lambda: ResNet((64, 128, 256, 512), 2), (32, 3, 32, 32)),
    "resnet20": (lambda: ResNet((16, 32, 64), 3), (32, 3, 32, 32)),
    "resnet56": (lambda: ResNet((16, 32, 64), 9), (32, 3, 32, 32)),
    "mlp_100x64": (lambda: mlp(100, 64), (32, 16)),
    "mlp_60x16": (lambda: mlp(60, 16), (32, 16)),
    "normed_mlp_40x32": (lambda: NormedMLP(40, 32), (32, 16)),
    "transformer_24": (lambda: Transformer(24, 64, 128), (8, 16, 16)),
}
"""How each network is made, and the shape of its batch."""
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-3),
    "fused adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-3, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-3, momentum=0.9),
}


def make_steps(name: str, optimizer: str, device: torch.device) -> dict[str, Callable[[], tuple[float, float]]]:
    """Dense and gated steps of one network; each returns its seconds, and those of the processor."""
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    dense = build().to(device)
    model = copy.deepcopy(dense)
    x = torch.randn(shape, device=device)
    y = torch.randint(10, shape[:1], device=device)
    pruner = l0prune.wrap(model, x[:2], target_sparsity=0.5, round_to=1)
    optimizers = {
        "dense": OPTIMIZERS[optimizer](dense.parameters()),
        "gated": OPTIMIZERS[optimizer](pruner.parameter_groups(lr=1e-3)),
    }

    def step(network: nn.Module, gated: bool) -> tuple[float, float]:
        began, worked = time.perf_counter(), time.process_time()
        loss = F.cross_entropy(network(x), y)
        if gated:
            loss = loss + pruner.penalty()
        loss.backward()
        own = optimizers["gated" if gated else "dense"]
        own.step()
        own.zero_grad()
        if gated:
            pruner.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began, time.process_time() - worked

    dense.train()
    model.train()
    return {"dense": lambda: step(dense, False), "gated": lambda: step(model, True)}


def measure(name: str, optimizer: str, pairs: int, device: torch.device) -> dict[str, Any]:
    """Times of dense and gated steps in turns, and their ratios."""
    steps = make_steps(name, optimizer, device)
    times: dict[str, list[tuple[float, float]]] = {"dense": [], "gated": []}
    warm_up = 3
    for pair in range(pairs + warm_up):
        # The order alternates too: whoever comes second finds warmer caches.
        for kind in ("dense", "gated") if pair % 2 else ("gated", "dense"):
            taken = steps[kind]()
            if pair >= warm_up:
                times[kind].append(taken)
    ratios, worked = (
        [gated[k] / dense[k] for dense, gated in zip(times["dense"], times["gated"], strict=True)] for k in (0, 1)
    )
    quarters = statistics.quantiles(ratios, n=4)
    return {
        "batch": list(NETWORKS[name][1]),
        "optimizer": optimizer,
        "pairs": pairs,
        "dense_step_ms_median": 1e3 * statistics.median(seconds for seconds, _ in times["dense"]),
        "gated_step_ms_median": 1e3 * statistics.median(seconds for seconds, _ in times["gated"]),
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": [quarters[0], quarters[2]],
        "processor_ratio_median": statistics.median(worked),
        "bound": BOUNDS.get(name),
    }


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--optimizer", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS)[:1])
    parser.add_argument("--seconds", type=float, default=30.0, help="for each network, by the first pair's time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/gating-own-loop.json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    result: dict[str, Any] = {**where(device), "networks": {}}
    for name in arguments.only:
        for optimizer in arguments.optimizer:
            steps = make_steps(name, optimizer, device)
            first = min(steps["dense"]()[0] + steps["gated"]()[0] for _ in range(3))
            pairs = min(400, max(15, int(arguments.seconds / first)))
            row = measure(name, optimizer, pairs, device)
            key = name if optimizer == arguments.optimizer[0] else f"{name}, {optimizer}"
            result["networks"][key] = row
            print(key, *(f"{row[k]:.3f}" for k in ("ratio_median", "processor_ratio_median")), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
