"""What is put in the place of the modules of a block that goes, and what their surroundings ask of it."""

from torch import nn

from l0prune.groups import SKIPS, Bypass
from l0prune.removal.bypassed import Bypassed, Skipped
from l0prune.removal.caches import caching_order, renumber_caches
from l0prune.support import is_inside, own_modules


def skip(model: nn.Module, gone: dict[str, Bypass]) -> None:
    """Put what is left of emptied blocks in their places.

    Args:
        model: The model, changed in place.
        gone: By path, how each module of them is bypassed; a block within another goes with it.
    """
    order = caching_order(model)
    for path, bypass in gone.items():
        if is_inside(path, *(gone.keys() - {path})):
            continue
        parent, _, name = path.rpartition(".")
        holder = model.get_submodule(parent)
        setattr(holder, name, _left_of(getattr(holder, name), bypass.returns))
        if isinstance(holder, nn.TransformerEncoderLayer):
            # Its fast path reads the weights of the modules that it holds.
            holder.activation_relu_or_gelu = 0
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(type(inner) is Skipped for inner in module.modules()):
            module.use_nested_tensor = False
    renumber_caches(model, order)


def _left_of(module: nn.Module, returns: str) -> nn.Module:
    if returns not in SKIPS:
        return Bypassed(returns)
    left = Skipped(returns)
    # What else reads numbers and names of the module goes on.
    known = {key: value for key, value in vars(module).items() if type(value) in (bool, int, float, str)}
    vars(left).update({key: value for key, value in known.items() if key not in vars(left)})
    left.training = module.training
    if isinstance(module, nn.TransformerEncoderLayer):
        # An encoder asks its first layer for the order of dimensions.
        own_modules(left)["self_attn"] = _left_of(module.self_attn, "input")
    if isinstance(module, nn.MultiheadAttention):
        # The layer around it takes its fast path with a bias alone.
        vars(left)["in_proj_bias"] = None
    return left
