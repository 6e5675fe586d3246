"""scikit-learn's digits, 1,797 images of 8 x 8 pixels, and plain training on them."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from l0bench.digit_pruning.networks import NETWORKS
from l0bench.learning_rate import rate_at, set_rate

BATCH = 32
DENSE_STEPS, DENSE_RATE = 1500, 3e-3
Labelled = tuple[Tensor, Tensor]
"""Images (B, 1, 8, 8) in [0, 1], and labels (B,)."""


@cache
def split() -> dict[str, Labelled]:
    """1,000 images to train on, 200 to choose learning rates on, 597 to test on; always the same."""
    digits: Any = load_digits()
    order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(1234))
    images = torch.tensor(digits.images, dtype=torch.float32)[order, None] / 16
    labels = torch.tensor(digits.target)[order]
    ends = {"train": (0, 1000), "validation": (1000, 1200), "test": (1200, len(images))}
    return {name: (images[first:end], labels[first:end]) for name, (first, end) in ends.items()}


def batches(seed: int) -> Iterator[Labelled]:
    """Random training batches without end."""
    images, labels = split()["train"]
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(0, len(images), (BATCH,), generator=generator)
        yield images[chosen], labels[chosen]


@torch.no_grad()
def scored(model: nn.Module, part: str) -> tuple[float, float]:
    """Accuracy in [0, 1] and cross-entropy in nats; the model is put into evaluation mode."""
    images, labels = split()[part]
    outputs = model.eval()(images)
    return float((outputs.argmax(1) == labels).float().mean()), float(F.cross_entropy(outputs, labels))


def train(model: nn.Module, data: Iterator[Labelled], *, rate: float, steps: int, done: int = 0) -> None:
    """AdamW, with the rate of `rate_at`.

    Args:
        model: Trained in place.
        data: Batches.
        rate: The peak.
        steps: In all.
        done: How many of them were made before.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True)
    model.train()
    for step in range(done, steps):
        set_rate(optimizer.param_groups, rate_at(step, steps, rate))
        images, labels = next(data)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


@cache
def trained(network: str, seed: int) -> nn.Module:
    """The dense network that all methods start from; to be copied."""
    torch.manual_seed(seed)
    model = NETWORKS[network]()
    train(model, batches(seed), rate=DENSE_RATE, steps=DENSE_STEPS)
    return model.eval()
