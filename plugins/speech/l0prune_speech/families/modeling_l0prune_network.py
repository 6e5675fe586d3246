"""A model of transformers whose layers have widths of their own, as l0prune left them; needs transformers alone."""

import torch
from torch import nn
from transformers.models.MODULE import CLASS as Dense  # type: ignore


def narrow(model, widths):
    """Give parameters, buffers and numbers of modules the sizes that config.json lists under `l0prune`."""
    modules = dict(model.named_modules())
    for name, shape in widths["shapes"].items():
        path, _, last = name.rpartition(".")
        old = getattr(modules[path], last)
        new = torch.zeros(shape, dtype=old.dtype)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(modules[path], last, new)
    for name, value in widths["numbers"].items():
        path, _, last = name.rpartition(".")
        setattr(modules[path], last, tuple(value) if isinstance(value, list) else value)


class Pruned(Dense):
    """The pruned model; its interface is that of the dense one."""

    def __init__(self, config):
        super().__init__(config)
        narrow(self, config.l0prune)
