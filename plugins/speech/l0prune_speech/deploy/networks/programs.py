"""What programs without Python classes compute: a network with its head, or encoder and decoder with a cache.

Names are those of the ONNX community: `encoder_model` hears; `decoder_model` reads a prompt and makes keys and values;
`decoder_with_past_model` reads one more token with those. Everything else is one `model`.

Legend: B clips, T frames, N tokens of a prompt, P tokens before, D width, V classes or vocabulary, h heads, d their
width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from l0prune_speech.families import SpeechNetwork

_FREE = torch.export.Dim.DYNAMIC
WHOLE, ENCODER, DECODER, WITH_PAST = "model", "encoder_model", "decoder_model", "decoder_with_past_model"
"""Names of files, without suffix."""
STATES, LOGITS = "last_hidden_state", "logits"
_KINDS = ("decoder.key", "decoder.value", "encoder.key", "encoder.value")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A module to export, with what exporting it takes."""

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: tuple[Mapping[int, Any], ...]
    """Which dimensions of each input stay free."""


class Whole(nn.Module):
    """A network with its head: logits, if any, and the encoder's last state.

    Args:
        network: Whose head it is.
        names: Of the inputs.
    """

    def __init__(self, network: SpeechNetwork, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = network.model, tuple(names)
        self.run = network.head.run  # type: ignore[attr-defined]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Inputs -> logits (B, T, V) or (B, V), last hidden state (B, T, D)."""
        states, logits = self.run(self.model, dict(zip(self.names, given, strict=True)), None)
        return (states[-1],) if logits is None else (logits, states[-1])


class Encoder(nn.Module):
    """The encoder of a network with a decoder."""

    def __init__(self, model: Any, name: str) -> None:
        super().__init__()
        self.encoder, self.name = model.get_encoder(), name

    def forward(self, given: Tensor) -> Tensor:
        """Features or waveforms -> last hidden state (B, T, D)."""
        return self.encoder(**{self.name: given}).last_hidden_state


class _Decoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder, self.project = model.get_decoder(), model.get_output_embeddings()
        # Newer versions of transformers have renamed it.
        takes = signature(self.decoder.forward).parameters
        self.cache = "cache" if "cache" in takes else "past_key_values"

    def run(self, tokens: Tensor, states: Tensor, cache: Any) -> Tensor:
        """Logits (B, N, V)."""
        output = self.decoder(input_ids=tokens, encoder_hidden_states=states, use_cache=True, **{self.cache: cache})
        return self.project(output.last_hidden_state)


def _cache() -> Any:
    from transformers import DynamicCache, EncoderDecoderCache

    return EncoderDecoderCache(DynamicCache(), DynamicCache())


class FirstTokens(_Decoder):
    """A decoder that reads a prompt, and makes the keys and values that later tokens read."""

    def forward(self, tokens: Tensor, states: Tensor) -> tuple[Tensor, ...]:
        """(B, N), (B, T, D) -> logits (B, N, V), and of each layer keys and values (B, h, N or T, d)."""
        cache = _cache()
        logits = self.run(tokens, states, cache)
        made: list[Tensor] = [logits]
        for own, cross in zip(cache.self_attention_cache.layers, cache.cross_attention_cache.layers, strict=True):
            made += [own.keys, own.values, cross.keys, cross.values]
        return tuple(made)


class NextToken(_Decoder):
    """A decoder that reads one more token.

    Args:
        model: The network.
        width: D.
    """

    def __init__(self, model: Any, width: int) -> None:
        super().__init__(model)
        self.width = width

    def forward(self, tokens: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """(B, 1), and of each layer keys and values -> logits (B, 1, V), and of each layer its own keys and values."""
        cache = _cache()
        for layer in range(len(past) // len(_KINDS)):
            keys, values, cross_keys, cross_values = past[len(_KINDS) * layer :][: len(_KINDS)]
            cache.self_attention_cache.update(keys, values, layer)
            cache.cross_attention_cache.update(cross_keys, cross_values, layer)
            cache.is_updated[layer] = True
        # Not read: keys and values are there. It says that there is an encoder.
        states = past[0].new_zeros(tokens.shape[0], 1, self.width)
        made = [self.run(tokens, states, cache)]
        for own in cache.self_attention_cache.layers:
            made += [own.keys, own.values]
        return tuple(made)


def past_names(prefix: str, layers: int, kinds: Sequence[str] = _KINDS) -> tuple[str, ...]:
    """Names of keys and values, in the programs' order."""
    return tuple(f"{prefix}.{layer}.{kind}" for layer in range(layers) for kind in kinds)


def programs(network: SpeechNetwork, inputs: Mapping[str, Tensor]) -> list[Program]:
    """The programs of a network.

    Args:
        network: Its model is in evaluation mode.
        inputs: An example of what it is given, of two clips.
    """
    given = {name: tensor for name, tensor in inputs.items() if name != "lengths"}
    model: Any = network.model
    # A fixed window is fixed in the program.
    free = {0: _FREE} if network.window_seconds is not None else {0: _FREE, 1: _FREE}
    if network.task != "seq2seq":
        with torch.no_grad():
            outputs = Whole(network, tuple(given))(*given.values())
        return [
            Program(
                name=WHOLE,
                module=Whole(network, tuple(given)),
                example=tuple(given.values()),
                inputs=tuple(given),
                outputs=(LOGITS, STATES)[2 - len(outputs) :],
                free=(free,) * len(given),
            )
        ]
    name = model.main_input_name
    encoder = Encoder(model, name)
    with torch.no_grad():
        states = encoder(given[name])
        tokens = torch.arange(6).reshape(2, 3)
        first = FirstTokens(model)
        _, *past = first(tokens, states)
    layers = len(past) // len(_KINDS)
    return [
        Program(name=ENCODER, module=encoder, example=(given[name],), inputs=(name,), outputs=(STATES,), free=(free,)),
        Program(
            name=DECODER,
            module=first,
            example=(tokens, states),
            inputs=("input_ids", "encoder_hidden_states"),
            outputs=(LOGITS, *past_names("present", layers)),
            free=({0: _FREE, 1: _FREE}, {0: _FREE, 1: _FREE}),
        ),
        Program(
            name=WITH_PAST,
            module=NextToken(model, states.shape[-1]),
            example=(tokens[:, :1], *past),
            inputs=("input_ids", *past_names("past_key_values", layers)),
            outputs=(LOGITS, *past_names("present", layers, _KINDS[:2])),
            free=({0: _FREE}, *({0: _FREE, 2: _FREE} for _ in past)),
        ),
    ]


def exported(program: Program) -> torch.export.ExportedProgram:
    """A program of `torch.export`."""
    free: Any = program.free
    # A variable number of positional arguments is one tuple to torch.export.
    several = isinstance(program.module, Whole)
    if several:
        free = (free,)
    elif isinstance(program.module, NextToken):
        free = (free[0], free[1:])
    with torch.no_grad():
        return torch.export.export(program.module, program.example, dynamic_shapes=free, strict=False)
