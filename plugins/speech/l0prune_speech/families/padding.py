"""A pruned network in its stock class again: what the class cannot hold is padded with zeros, which change nothing.

A unit whose weights are zeros adds nothing: activations of zero are zero, and a head whose values are zeros attends to
them in vain. So the outputs stay, up to rounding, and the size lies between that of the network and the dense one's.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune import ConfigError
from l0prune.removal import RemovalPlan, remembered
from l0prune_speech.families.network import SpeechNetwork
from l0prune_speech.families.registry import family_named

_WIDTHS = {
    "intermediate_size": ("intermediate_dense", "fc1"),
    "encoder_ffn_dim": ("encoder.layers.*.fc1",),
    "decoder_ffn_dim": ("decoder.layers.*.fc1",),
}
"""Settings of stock classes that hold one width for all layers, and the modules that have it."""


def stock_model(network: SpeechNetwork, model: nn.Module) -> Any:
    """A model of the stock class, with any weights, that has a model's widths; None where there is none."""
    wanted = _shapes(model)
    for changes in ({}, widest(network.architecture["config"], model)):
        with contextlib.suppress(ValueError, TypeError, RuntimeError):
            with torch.device("meta"):
                made = _built(network, changes)
            if _shapes(made) == wanted:
                return _built(network, changes)
    return None


def padded(network: SpeechNetwork, model: nn.Module) -> nn.Module:
    """A model of the stock class that computes what a pruned one does.

    Feed-forward layers get the width of the widest one, attention and everything else that of the dense network. Units
    of the dense width stand where they stood there, so that what counts heads (word times) still holds.

    Args:
        network: What the model belongs to.
        model: Pruned or dense.

    Raises:
        ConfigError: A layer is missing that the class has, or a norm looks at units that would be padded.
    """
    plan = remembered(model)
    target: Any = _built(network, widest(network.architecture["config"], model))
    survivors = plan.survivors() if plan else {}
    state, before = target.state_dict(), model.state_dict()
    for group in plan.groups if plan else ():
        # A norm need not have a weight to look at its units.
        widened = any(p.tensor in before and before[p.tensor].shape != state[p.tensor].shape for p in group.places)
        if group.norms and widened:
            hint = "--units head,ffn leaves them, and --to huggingface holds them as narrow as they are"
            raise ConfigError("a norm would count padding with its units", where=group.norms[0].module, hint=hint)
    if missing := sorted(state.keys() - before.keys()):
        hint = "--to huggingface brings code along that can"
        raise ConfigError("the stock class has no room for a missing layer", where=missing[0], hint=hint)
    for name, tensor in before.items():
        state[name] = spread(tensor, state[name], [survivors.get((name, dim)) for dim in range(tensor.ndim)])
    target.load_state_dict(state)
    if getattr(model, "generation_config", None) is not None:
        target.generation_config = model.generation_config
    return target.eval()


def widest(config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """The settings of a stock class that has room for the widths of a model's layers."""
    found: dict[str, Any] = {}
    plan = remembered(model)
    for setting, patterns in _WIDTHS.items():
        widths = {
            path: module.out_features
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear) and any(_fits(path, pattern) for pattern in patterns)
        }
        dense = {plan.shapes[f"{path}.weight"][0] if plan else width for path, width in widths.items()}
        # Where it gates itself, a layer has twice the width that is set: it stays as it was.
        if setting in config and (plan is None or dense == {config[setting]}):
            found[setting] = max(widths.values())
    if "conv_dim" in config:
        layers = (m for p, m in model.named_modules() if isinstance(m, nn.Conv1d) and ".conv_layers." in f".{p}")
        found["conv_dim"] = [layer.out_channels for layer in layers]
    return found


def kept_heads(plan: RemovalPlan, projection: str, head_dim: int) -> list[int]:
    """The heads of the dense network whose rows a projection has kept."""
    rows = plan.survivors().get((f"{projection}.weight", 0))
    if rows is None:
        return list(range(plan.shapes[f"{projection}.weight"][0] // head_dim))
    return [int(row) // head_dim for row in rows[::head_dim]]


@contextlib.contextmanager
def times_of_words(model: Any) -> Iterator[None]:
    """Meanwhile the heads that tell when words are said, which generation_config lists, are numbered as they are left.

    Where none of them is left, all heads of the decoder's last half serve, as for models that list none.
    """
    settings: Any = getattr(model, "generation_config", None)
    plan = remembered(model)
    listed = getattr(settings, "alignment_heads", None)
    if not listed or plan is None:
        yield
        return
    layers = model.model.decoder.layers
    attentions = [layer.encoder_attn for layer in layers]
    left = [
        kept_heads(plan, f"model.decoder.layers.{layer}.encoder_attn.q_proj", attention.head_dim)
        for layer, attention in enumerate(attentions)
    ]
    moved = [[layer, left[layer].index(head)] for layer, head in listed if head in left[layer]]
    last = range(len(layers) // 2, len(layers))
    settings.alignment_heads = moved or [[layer, head] for layer in last for head in range(len(left[layer]))]
    try:
        yield
    finally:
        settings.alignment_heads = listed


def _built(network: SpeechNetwork, changes: Mapping[str, Any]) -> nn.Module:
    config = {**network.architecture["config"], **changes}
    return family_named(network.family).build({**network.architecture, "config": config})


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def spread(tensor: Tensor, room: Tensor, survivors: list[np.ndarray | None]) -> Tensor:
    """A tensor among zeros: in its dense places where the room is dense, else in front."""
    if tensor.shape == room.shape:
        return tensor
    places = []
    for count, extent, stayed in zip(tensor.shape, room.shape, survivors, strict=True):
        is_dense = stayed is not None and len(stayed) == count and (not count or stayed[-1] < extent)
        places.append(torch.as_tensor(stayed) if is_dense and stayed is not None else torch.arange(count))
    result = torch.zeros_like(room)
    result[torch.meshgrid(*places, indexing="ij")] = tensor
    return result


def _fits(path: str, pattern: str) -> bool:
    parts, wanted = path.split("."), pattern.split(".")
    return all(w in ("*", p) for p, w in zip(parts[-len(wanted) :], wanted, strict=False)) and len(parts) >= len(wanted)
