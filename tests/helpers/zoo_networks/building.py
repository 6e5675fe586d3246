"""Networks of the zoo as they are proved: awake, and with statistics of their own."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from zoo_networks.inputs import Inputs, Network, others


def built(network: Network) -> tuple[nn.Module, Callable[[nn.Module], Any], Callable[[nn.Module], Any]]:
    """A network without a parameter near 0, where an error could hide; runs it on its inputs, and on others."""
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    model = network.make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.square().mean().sqrt() < 1e-3:
                parameter.normal_(std=0.1)
    observe = partial(run, network.inputs)
    batch_norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if batch_norms:
        # With fresh running statistics the signal of a deep network dies out, and errors with it.
        for module in batch_norms:
            module.momentum = None
        with torch.no_grad():
            observe(model.train())
    return model.eval(), observe, partial(run, others(network.inputs))


def run(inputs: Inputs, model: nn.Module) -> Any:
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
