"""Well-known architectures with random weights: what discovery reaches in each, and that every cut is right."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_plans import random_cut
from torch import nn
from zoo_networks import ZOO, built

from l0prune import GatedModel, RemovalPlan, load, save
from l0prune.discovery.found import Discovery
from l0prune.discovery.search import discover
from l0prune.measuring.count import macs
from l0prune.proof.exactness import relative_difference
from l0prune.proof.trials import find_faults
from l0prune.pruner import ANY_MODEL_TOLERANCE
from l0prune.pruner.sizing import sized_where_needed
from l0prune.size.macs import mac_size
from l0prune.support import output_tensors

# Attention over channels by a convolution (ECA) or by a softmax over paths (SK), and gates that tie heads to the trunk.
FEW_REACHED = ("ECA-ResNet", "SK-ResNet", "WavLM with a head", "WavLM (transformers)")

# How many tokens an expert gets depends on what is cut: its multiply-accumulates are no polynomial in kept counts.
ROUTED = ("Experts in a list",)

# One of each kind of difficulty: depthwise and squeezed, shuffled, concatenated, fused and grouped heads, experts,
# weight norm, states.
REPRESENTATIVE = (
    "EfficientNet-B0",
    "ShuffleNetV2",
    "ViT (timm)",
    "Llama (grouped queries)",
    "Mixtral",
    "HuBERT with a head",
    "U-Net",
    "LSTM classifier",
)


def build(name: str) -> tuple[nn.Module, Callable[[nn.Module], Any], Callable[[nn.Module], Any]]:
    """A network of the zoo, and its forward passes."""
    return built(ZOO[name])


def check(name: str, folder: Path) -> tuple[Discovery, nn.Module]:
    model, observe, elsewhere = build(name)
    found = sized_where_needed(model, discover(model, observe, depth=ZOO[name].depth), observe)
    assert found.groups
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    worst, faults = find_faults(gated, observe, tolerance=ANY_MODEL_TOLERANCE)
    assert worst <= ANY_MODEL_TOLERANCE
    assert not faults
    cost = mac_size(model, found.groups, found.trace)
    dense = observe(model)
    uncounted = None if name in ROUTED else cost.total - counted_macs(model, observe)
    for seed in range(3):
        pruned, plan = random_plan_is_right(
            gated, observe, elsewhere, cost, dense, uncounted, np.random.default_rng(seed)
        )
    save(pruned, plan, folder)
    assert relative_difference(observe(pruned), observe(load(folder, ZOO[name].make))) == 0
    sum(x.float().square().mean() for x in output_tensors(observe(pruned)) if x.requires_grad).backward()
    gradients = [p.grad for p in pruned.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    return found, gated.detach()


@torch.no_grad()
def random_plan_is_right(gated, observe, elsewhere, cost, dense, uncounted, random) -> tuple[nn.Module, RemovalPlan]:
    """On the inputs that the groups were found on, and on others."""
    (expected, other), pruned, plan, kept = random_cut(gated, lambda m: (observe(m), elsewhere(m)), random)
    assert relative_difference(expected, observe(pruned)) <= ANY_MODEL_TOLERANCE
    assert relative_difference(other, elsewhere(pruned)) <= ANY_MODEL_TOLERANCE
    assert relative_difference(dense, expected) > 10 * ANY_MODEL_TOLERANCE
    if uncounted == 0:
        assert cost.exact(kept) == counted_macs(pruned, observe)
    return pruned, plan


def counted_macs(model: nn.Module, observe: Callable[[nn.Module], Any]) -> int:
    return macs(lambda: observe(model))


def row(name: str, found: Discovery, model: nn.Module) -> tuple[str, ...]:
    size = GatedModel(copy.deepcopy(model), found.groups, target_sparsity=1e-9).size_model
    share = 1 - size.exact(np.zeros_like(size.units)) / size.total
    kinds = Counter(group.kind for group in found.groups)
    reasons = Counter[str]()
    for alone in found.left_alone:
        reasons["the model's own output" if alone.interface else alone.reason.split(" in ")[0].split(":")[0]] += (
            alone.units
        )
    return (
        name,
        str(len(found.groups)),
        f"{found.reached_units / found.hidden_units:.0%}",
        f"{share:.0%}",
        ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
        "; ".join(f"{units} units: {reason}" for reason, units in reasons.items()) or "nothing",
    )


@pytest.mark.zoo
@pytest.mark.parametrize("name", ZOO)
def test_zoo(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    found, model = check(name, tmp_path)
    record_property("zoo", row(name, found, model))
    assert found.reached_units > found.hidden_units / 2 or name in FEW_REACHED


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_a_representative_part(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_multiply_accumulates_of_a_recurrent_network_are_those_of_its_matrix_products() -> None:
    """torch's counter knows no recurrent layer: (24 + 32) * 4 * 32 and (64 + 32) * 4 * 32 a step and direction."""
    model, observe, _ = build("LSTM classifier")
    found = discover(model, observe)
    steps = ZOO["LSTM classifier"].inputs[0].numel()
    expected = steps * 2 * 4 * 32 * (24 + 32 + 64 + 32) + 2 * 64 * 5
    assert mac_size(model, found.groups, found.trace).total == expected
