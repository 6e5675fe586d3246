"""torch.compile for a network in training, layer by layer: what is compiled stays small, and outlives a cut."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch.compiler.config as compiler
from torch import nn


@contextmanager
def compiler_settings_kept() -> Iterator[None]:
    """Put back, when a run ends, what `compile_layers` changes for the whole process.

    Layers are compiled when they first run, and again for an evaluation or after a cut: all of that is inside.
    """
    before = compiler.recompile_limit
    with warnings.catch_warnings():
        try:
            yield
        finally:
            compiler.recompile_limit = before


def compile_layers(model: nn.Module) -> None:
    """Compile each layer of a model's stacks in place, or the model where it has no stack.

    Changes the compiler's settings and a filter of warnings: `compiler_settings_kept` puts them back.
    """
    # The compiler looks at the sampled gates' `grad`, which is of no use and warns.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) > 1]
    layers = [layer for stack in stacks for layer in stack]
    within = {id(inner) for layer in layers for inner in layer.modules() if inner is not layer}
    outermost = [layer for layer in layers if id(layer) not in within] or [model]
    # Gated layers are of a class each, pruned ones of a width each: none can use another's code.
    compiler.recompile_limit = max(compiler.recompile_limit, 4 * len(outermost))
    for layer in outermost:
        layer.compile(dynamic=True)
