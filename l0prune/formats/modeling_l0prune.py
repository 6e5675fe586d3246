"""A model of transformers whose layers have widths of their own, as l0prune left them; needs transformers alone."""

import torch
from torch import nn
from transformers.models.MODULE import CLASS as Dense  # type: ignore


class Emptied(nn.Module):
    """In place of a residual block that is not there: a zero that broadcasts over the residual stream."""

    def __init__(self, returns):
        super().__init__()
        self.returns = returns

    def forward(self, x, *args, **kwargs):
        """x: any shape -> a scalar zero; with `returns="pair"`, beside None."""
        zero = x.new_zeros(())
        return (zero, None) if self.returns == "pair" else zero


def owner(model, path):
    """The module that holds something, and its name there."""
    home, _, name = path.rpartition(".")
    return model.get_submodule(home), name


def narrow(model, widths):
    """Give modules the sizes that config.json lists under `l0prune`."""
    for path, returns in widths.get("emptied", {}).items():
        setattr(*owner(model, path), Emptied(returns))
    for path, shape in widths["shapes"].items():
        module, name = owner(model, path)
        old = getattr(module, name)
        new = torch.zeros(shape, dtype=old.dtype)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(module, name, new)
    for path, value in widths["numbers"].items():
        setattr(*owner(model, path), tuple(value) if isinstance(value, list) else value)


class Pruned(Dense):
    """The pruned model; its interface is that of the dense one."""

    def __init__(self, config):
        super().__init__(config)
        narrow(self, config.l0prune)
