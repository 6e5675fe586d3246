"""What an encoder makes of a batch, and what its attention layers say on the way.

Legend: B clips, T frames, D width, h heads of width d in a layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from l0prune_speech.encoder.modules import SpeechEncoder, WavLMAttention


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Hidden states, and relations between frames."""

    states: Sequence[Tensor]
    """(B, T, D) of layer 0 and of each transformer layer that was gone through."""
    maps: Mapping[int, Tensor] = field(default_factory=dict)
    """Attention maps by layer, averaged over heads, (B, T, T); none of a layer without attention."""
    values: Mapping[int, Tensor] = field(default_factory=dict)
    """Relations of values by layer, averaged over heads, (B, T, T); likewise."""

    def of(self, clips: Tensor) -> "Recording":
        """Those of some clips, by number."""
        return replace(
            self,
            states=[state[clips] for state in self.states],
            maps={layer: one[clips] for layer, one in self.maps.items()},
            values={layer: one[clips] for layer, one in self.values.items()},
        )


def record(
    encoder: SpeechEncoder,
    waveforms: Tensor,
    *,
    depth: int | None = None,
    lengths: Tensor | None = None,
    maps: Sequence[int] = (),
    values: Sequence[int] = (),
    hidden: tuple[Tensor, Tensor] | None = None,
) -> Recording:
    """Run an encoder, gated or pruned.

    Args:
        encoder: The network.
        waveforms: (B, samples) at 16 kHz.
        depth: How many transformer layers to go through; all by default.
        lengths: (B,) valid samples; all by default.
        maps: Layers, from 1 on, whose attention maps are wanted.
        values: Layers, from 1 on, whose relations of values are wanted.
        hidden: (B, T), true where a frame is hidden from the transformer, and what stands there instead, (D,).
    """
    layers: Any = encoder.encoder.transformer.layers  # type: ignore[union-attr]
    wanted = sorted({*maps, *values})
    attentions = {layer: layers[layer - 1].attention for layer in wanted}
    with ExitStack() as stack:
        heard = {
            layer: stack.enter_context(_listening(attention))
            for layer, attention in attentions.items()
            if hasattr(attention, "q_proj")
        }
        if hidden is not None:
            stack.enter_context(_hiding(encoder.encoder.feature_projection, *hidden))  # type: ignore[union-attr, arg-type]
        states = encoder.hidden_states(waveforms, depth, lengths)
    heard = {layer: said for layer, said in heard.items() if said}
    return Recording(
        states=states,
        maps={layer: _attention_map(attentions[layer], heard[layer]) for layer in maps if layer in heard},
        values={layer: _value_relations(attentions[layer], heard[layer]) for layer in values if layer in heard},
    )


def head_shares(attention: nn.Module) -> Tensor:
    """(h,) what each head counts in means over heads: the norm of its columns of the output projection; sums to 1.

    A closed head counts nothing, and so the means are the same before and after it is cut. All are 0 where every head
    is closed.
    """
    weight: Tensor = attention.out_proj.weight  # type: ignore[union-attr, assignment]
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    norms = torch.linalg.vector_norm(weight.unflatten(1, (-1, int(attention.head_dim))), dim=(0, 2))  # type: ignore[arg-type]
    return norms / norms.sum().clamp_min(torch.finfo(norms.dtype).tiny)


@contextmanager
def _listening(attention: nn.Module) -> Iterator[dict[str, Any]]:
    """What an attention block is given, and its queries, keys and values (B, T, h * d), filled in as it runs."""
    said: dict[str, Any] = {}

    def before(_module: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        names = ("x", "attention_mask", "position_bias")
        said.update(dict.fromkeys(names) | dict(zip(names, given, strict=False)) | dict(named))

    def keep(name: str) -> Any:
        return lambda _module, _given, output: said.__setitem__(name, output)

    hooks = [attention.register_forward_pre_hook(before, with_kwargs=True)]
    hooks += [attention.get_submodule(f"{name}_proj").register_forward_hook(keep(name)) for name in "qkv"]
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _hiding(projection: nn.Module, hidden: Tensor, instead: Tensor) -> Iterator[None]:
    """Put a vector in the place of hidden frames, where they enter the transformer."""

    def replaced(_module: nn.Module, _given: Any, output: Tensor) -> Tensor:
        return torch.where(hidden[..., None], instead.to(output), output)

    hook = projection.register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()


def _heads(attention: nn.Module, projected: Tensor) -> Tensor:
    """(B, T, h * d) -> (B, h, T, d), in float32 at least."""
    projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
    return projected.unflatten(-1, (-1, int(attention.head_dim))).transpose(1, 2)  # type: ignore[arg-type]


def _attention_map(attention: nn.Module, said: Mapping[str, Any]) -> Tensor:
    scores = _scores(attention, said["q"], said["k"])
    if said["position_bias"] is not None and isinstance(attention, WavLMAttention):
        scores = scores + attention.gate(said["x"]) * said["position_bias"][:, attention.head_index]
    return _averaged(attention, scores, said["attention_mask"])


def _value_relations(attention: nn.Module, said: Mapping[str, Any]) -> Tensor:
    return _averaged(attention, _scores(attention, said["v"], said["v"]), said["attention_mask"])


def _scores(attention: nn.Module, one: Tensor, other: Tensor) -> Tensor:
    with torch.autocast(one.device.type, enabled=False):
        one, other = _heads(attention, one), _heads(attention, other)
        return one @ other.transpose(-1, -2) * int(attention.head_dim) ** -0.5  # type: ignore[arg-type]


def _averaged(attention: nn.Module, scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores (B, h, T, T) -> the mean over heads of their softmaxes over keys (B, T, T)."""
    with torch.autocast(scores.device.type, enabled=False):
        if mask is not None:
            scores = scores + mask
        return torch.einsum("h,bhqk->bqk", head_shares(attention).to(scores), scores.softmax(-1))
