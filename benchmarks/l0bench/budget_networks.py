"""What `budgets.py` prunes: networks of the usual sizes with random weights, and groups alone."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from l0prune_speech.encoder import build_encoder, encoder_groups
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from l0bench.hubert_base import BASE, SECONDS
from l0prune import Place, PruneGroup, Role, SizeModel, consecutive, discover
from l0prune.size import Budget, PeakSize


class Contestant(NamedTuple):
    """A network, its input and its groups."""

    model: nn.Module
    x: Tensor
    groups: Sequence[PruneGroup]


class Logits(nn.Module):
    """A language model as a function of tokens, without a cache."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) -> (B, T, V)."""
        return self.language_model(tokens, use_cache=False).logits


def hubert() -> Contestant:
    """HuBERT Base and ten seconds of audio."""
    model = build_encoder(BASE).eval()
    return Contestant(model, torch.zeros(1, SECONDS * 16_000), encoder_groups(model))


def resnet() -> Contestant:
    """ResNet-50 and four images."""
    return _discovered(torchvision.models.resnet50(), torch.randn(4, 3, 224, 224))


def vit() -> Contestant:
    """ViT-B/16 and four images."""
    return _discovered(torchvision.models.vit_b_16(), torch.randn(4, 3, 224, 224))


def llama() -> Contestant:
    """Llama's architecture with four layers, and four texts of 128 tokens."""
    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4,
    )  # fmt: skip
    return _discovered(Logits(LlamaForCausalLM(config)), torch.randint(0, 1000, (4, 128)))


def _discovered(model: nn.Module, x: Tensor) -> Contestant:
    model.eval()
    return Contestant(model, x, discover(model, lambda net: net(x)).groups)


NETWORKS: dict[str, Callable[[], Contestant]] = {"hubert": hubert, "resnet50": resnet, "vit-b-16": vit, "llama": llama}


def many_units(groups: int, units: int) -> tuple[list[PruneGroup], list[Budget]]:
    """A chain of layers with many units, and budgets of parameters, multiply-accumulates and memory.

    Each group's units are read by the next group's. Positions halve after each quarter of the chain, as they do in
    networks for images.
    """
    found = [
        PruneGroup(
            name=f"layers.{g}",
            kind="unit",
            units=units,
            places=(Place(tensor=f"layers.{g}", dim=0, role=Role.CONSUMES, index=consecutive(units)),),
        )
        for g in range(groups)
    ]
    positions = [4096 >> (4 * g // groups) for g in range(groups)]
    pairs = [((g, 1), (g + 1, 1)) for g in range(groups - 1)]
    weights = SizeModel(found, dict.fromkeys(pairs, 1) | {((g, 1),): 2 for g in range(groups)})
    products = {pair: positions[pair[1][0]] for pair in pairs}
    moments = [{((g, 1),): 4 * positions[g], ((g + 1, 1),): 4 * positions[g + 1]} for g in range(groups - 1)]
    always = {monomial: 4 * value for monomial, value in weights.coefficients.items()}
    sizes = {
        "params": weights,
        "macs": SizeModel(found, products),
        "memory": PeakSize(found, always, moments, counts="bytes"),
    }
    shares = {"params": 0.4, "macs": 0.3, "memory": 0.35}
    return found, [
        Budget(name, size, 1 - shares[name], int(np.floor(shares[name] * size.total))) for name, size in sizes.items()
    ]
