"""A model of transformers whose layers have widths of their own, as l0prune left them; needs transformers alone."""

import torch
from torch import nn
from transformers.models.MODULE import CLASS as Dense  # type: ignore


class Emptied(nn.Module):
    """In place of a module of a residual block that is not there: a zero for its output, or what it is given."""

    def __init__(self, returns, instead_of):
        super().__init__()
        plain = {key: value for key, value in vars(instead_of).items() if type(value) in (bool, int, float, str)}
        vars(self).update({key: value for key, value in plain.items() if key not in vars(self)})
        self.returns = str({"tensor": "zero", "pair": "zero 2"}.get(returns, returns))

    def forward(self, *args, **kwargs):
        """Any arguments, one of which is a tensor -> a scalar "zero", "zeros" or the "input"; in a tuple with Nones."""
        x = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        form, _, count = self.returns.partition(" ")
        value = x if form == "input" else x.new_zeros(()) if form == "zero" else x.new_zeros(x.shape)
        return (value, *[None] * (int(count) - 1)) if count else value


def owner(model, path):
    """The module that holds something, and its name there."""
    home, _, name = path.rpartition(".")
    return model.get_submodule(home), name


def narrow(model, widths):
    """Give modules the sizes that config.json lists under `l0prune`."""
    for path, returns in widths.get("emptied", {}).items():
        home, name = owner(model, path)
        setattr(home, name, Emptied(returns, getattr(home, name)))
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
