"""Weights as safetensors beside the plan as JSON: what `l0prune.save` writes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l0prune.formats.example import Example
from l0prune.formats.registry import ModuleFormat, Opened, register_module_format
from l0prune.removal import RemovalPlan, remembered
from l0prune.storage import WEIGHTS, save
from l0prune.support import copied, load_weights, model_shapes, tree_leaves


def _write(module: Any, example: Example, folder: Path) -> list[str]:
    plan = remembered(module)
    # A network that was not pruned, or cut by other means, has no groups to tell of.
    whole = RemovalPlan(groups=(), kept={}, shapes=model_shapes(module))
    tensors = example.args if all(isinstance(leaf, Tensor) for leaf in tree_leaves(example.args)) else ()
    save(module, plan or whole, folder, example_inputs=tensors)
    return [] if plan else ["the network carries no plan: model.json says its shapes alone"]


def _open(folder: Path, module: Any) -> Opened:
    # Another network of the same classes and shapes, whose own values must not be seen.
    blank = copied(module)
    with torch.no_grad():
        for tensor in [*blank.parameters(), *(b for b in blank.buffers() if b.is_floating_point())]:
            tensor.zero_()
        for name, buffer in module.named_buffers():
            if name not in module.state_dict():
                blank.get_buffer(name).copy_(buffer)
    load_weights(blank, folder / WEIGHTS)
    return lambda example: example.run(blank)


register_module_format(
    ModuleFormat(
        name="safetensors",
        holds="a folder with model.safetensors and, in model.json, the plan and the SHA-256; no pickle",
        write=_write,
        open=_open,
        opened_by="safetensors",
        tolerance=0.0,
    )
)
