"""The graph form of networks that derive or fix widths, beside the module form: its reach, and that cuts are right."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import graph_networks as own
import numpy as np
import pytest
import torch
from random_plans import random_cut
from test_zoo import ZOO, build
from torch import Tensor, nn

from l0prune import GatedModel, inspect
from l0prune.proof.exactness import relative_difference
from l0prune.pruner import ANY_MODEL_TOLERANCE
from l0prune.support import tree_leaves

OWN: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "Attention, sizes two functions deep": (own.FixedNetwork, own.sequences()),
    "U-Net with attention, the same": (own.AttentionUNet, torch.randn(2, 3, 8, 8)),
    "Attention of a class without source": (own.typed_in, own.sequences()),
}
NAMES = (
    *OWN,
    "Phi-3",
    "BEiT (timm)",
    "DINOv3 (timm)",
    "EVA-02",
    "XCiT",
    "PVTv2",
    "Swin",
    "Swin (timm)",
    "SegFormer",
    "Moonshine",
    "Twins-SVT",
    "DaViT",
)


def made(name: str) -> tuple[nn.Module, Callable[[nn.Module], Any], Any]:
    if name not in OWN:
        return *build(name), ZOO[name][1]
    torch.manual_seed(0)
    network, inputs = OWN[name]
    return network().eval(), lambda model: model(inputs), (inputs,)


def share(found: Any) -> float:
    return 1 - found.parameter_model.floor / found.parameter_model.total


def with_another_batch(model: nn.Module, inputs: Any) -> Any:
    """Outputs for three examples instead of two; None where the graph refuses them."""

    def longer(x: Any) -> Any:
        return torch.cat([x, x[:1]]) if isinstance(x, Tensor) else x

    try:
        if isinstance(inputs, Mapping):
            return model(**{key: longer(value) for key, value in inputs.items()})
        return model(*map(longer, inputs))
    except RuntimeError as error:
        if "has to be 2, as in the example" not in str(error):
            raise
        return None


@pytest.mark.zoo
@pytest.mark.parametrize("name", NAMES)
def test_graph_form(name: str, record_property: Callable[[str, object], None]) -> None:
    model, observe, inputs = made(name)
    run = partial(inspect, model, inputs, forward_fn=lambda m, _: observe(m), time_limit=600.0)
    module, graph = run(form="module"), run(form="graph")
    assert graph.graph is not None
    gated = GatedModel(model, graph.groups, target_sparsity=1e-9, form=graph.graph).eval()
    for seed in range(2):
        expected, pruned, _, _ = random_cut(gated, observe, np.random.default_rng(seed))
        assert relative_difference(expected, observe(pruned)) <= ANY_MODEL_TOLERANCE
    other = with_another_batch(pruned, inputs)
    loss = sum(x.float().square().mean() for x in tree_leaves(observe(pruned.train())) if isinstance(x, Tensor))
    loss.backward()  # type: ignore[union-attr]
    assert all(p.grad is None or p.grad.isfinite().all() for p in pruned.parameters())
    assert any(p.grad is not None for p in pruned.parameters())
    modes = "evaluation alone" if any("mode" in note for note in graph.graph.notes) else "both"
    record_property(
        "graph form",
        (
            name,
            f"{len(module.groups)} of {len(module.rows)}",
            f"{share(module):.1%}",
            f"{len(graph.groups)} of {len(graph.rows)}",
            f"{share(graph):.1%}",
            "no" if other is None else "yes",
            modes,
        ),
    )
