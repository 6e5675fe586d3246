"""Models of CTranslate2, which faster-whisper runs: Whisper with its decoder.

CTranslate2 knows one number of heads for all layers of the encoder, and one for those of the decoder: heads are padded
with zeros to the most that a layer has. Every other width is that of the weights.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune import ConfigError
from l0prune_speech.deploy.networks.clips import largest_difference
from l0prune_speech.deploy.networks.registry import NetworkForm, register_form
from l0prune_speech.families import BESIDE, Answer, Heard, Inputs, SpeechNetwork, times_of_words

_FILES = ("tokenizer.json", "preprocessor_config.json")
"""What faster-whisper reads beside the model."""
_MARKS = ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>")
"""Tokens that CTranslate2 looks up by name."""
_WINDOW = 30
"""Seconds, all that faster-whisper knows."""
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def check_ctranslate2() -> None:
    """Raise a `ConfigError` where ctranslate2 is missing."""
    try:
        import ctranslate2  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "the export needs ctranslate2", got=error, hint="pip install 'l0prune[ctranslate2]'"
        ) from error


def _refuses(network: SpeechNetwork) -> str | None:
    if type(network.model).__name__ != "WhisperForConditionalGeneration":
        return f"{type(network.model).__name__}, where CTranslate2 is written for WhisperForConditionalGeneration"
    if f"{BESIDE}/tokenizer.json" not in network.files:
        return "no tokenizer.json beside it, which names the tokens"
    if missing := [mark for mark in _MARKS if mark not in _vocabulary(network)]:
        return f"its tokenizer lacks {missing[0]}"
    return None


def _vocabulary(network: SpeechNetwork) -> list[str]:
    """The token of each number of the head; what the tokenizer does not name is named by its number."""
    size = int(network.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    from tokenizers import Tokenizer

    known = Tokenizer.from_buffer(network.files[f"{BESIDE}/tokenizer.json"]).get_vocab(with_added_tokens=True)
    names = {number: token for token, number in known.items()}
    return [names.get(number, f"<|{number}|>") for number in range(size)]


def _write(network: SpeechNetwork, folder: Path) -> tuple[str, ...]:
    from ctranslate2.converters.transformers import WhisperLoader

    vocabulary = _vocabulary(network)

    class Loader(WhisperLoader):
        def get_vocabulary(self, model: Any, tokenizer: Any) -> list[str]:
            return vocabulary

    with torch.no_grad():
        model, heads = _even(network.model)
        with times_of_words(network.model):
            model.generation_config = copy.deepcopy(getattr(network.model, "generation_config", None))
        spec: Any = Loader()(model, None)
        for part in (spec.encoder, spec.decoder):
            # It would take the root of the width by the number of heads.
            for layer in part.layer:
                for name in ("self_attention", "attention"):
                    if hasattr(layer, name):
                        getattr(layer, name).queries_scale = np.dtype("float32").type(heads["scale"])
        spec.validate()
        spec.optimize(quantization=None)
    spec.save(str(folder))
    for name in _FILES:
        if (content := network.files.get(f"{BESIDE}/{name}")) is not None:
            (folder / name).write_bytes(content)
    said = f"{heads['encoder']} heads in each layer of the encoder and {heads['decoder']} in the decoder's"
    notes = (f"{said}: those that are missing are zeros",)
    if network.window_seconds == _WINDOW:
        return notes
    window = f"it hears {network.window_seconds:g} s at once, and faster-whisper gives it {_WINDOW}"
    return (*notes, f"{window}: compress with --window-seconds {_WINDOW} for that")


def _even(model: Any) -> tuple[Any, Mapping[str, Any]]:
    """A copy whose attention has as many heads in each layer of the encoder, and of the decoder; and how many."""
    even, found = copy.deepcopy(model), {}
    for part in ("encoder", "decoder"):
        attentions: list[Any] = [m for m in getattr(even.model, part).modules() if hasattr(m, "out_proj")]
        found[part] = most = max(attention.num_heads for attention in attentions)
        for attention in attentions:
            _pad(attention, most * attention.head_dim)
            found["scale"] = 1 / math.sqrt(attention.head_dim)
    even.config = copy.copy(even.config)
    even.config.encoder_attention_heads, even.config.decoder_attention_heads = found["encoder"], found["decoder"]
    return even, found


def _pad(attention: Any, rows: int) -> None:
    """Give an attention this many rows, those behind its own zeros."""
    for name in _PROJECTIONS:
        layer = getattr(attention, name)
        layer.weight = nn.Parameter(_longer(layer.weight, 0, rows), requires_grad=False)
        if layer.bias is not None:
            layer.bias = nn.Parameter(_longer(layer.bias, 0, rows), requires_grad=False)
    attention.out_proj.weight = nn.Parameter(_longer(attention.out_proj.weight, 1, rows), requires_grad=False)


def _longer(tensor: Tensor, dim: int, extent: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = extent - shape[dim]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)


def _compare(network: SpeechNetwork, folder: Path) -> float:
    """The encoder's states, and the logits of tokens that the decoder is told."""
    import ctranslate2

    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32")
    prefix: tuple[int, ...] = network.head.prefix  # type: ignore[attr-defined]

    def hear(inputs: Inputs, answers: Sequence[Answer] | None) -> Heard:
        assert answers is not None
        features = np.ascontiguousarray(inputs["input_features"].numpy())
        states = model.encode(ctranslate2.StorageView.from_array(features))
        prompts = [[*prefix, *answer] for answer in answers]
        said = model.generate(
            states,
            prompts,
            beam_size=1,
            # Twice as many as it gives.
            max_length=2 * len(prompts[0]) + 2,
            suppress_blank=False,
            suppress_tokens=[],
            return_logits_vocab=True,
        )
        count = len(answers[0]) + 1
        rows = [np.stack([np.array(one) for one in each.logits[0][:count]]) for each in said]
        state = torch.from_numpy(np.array(states))
        logits = torch.from_numpy(np.stack(rows))
        return Heard(states=(state,), frames=torch.ones(state.shape[:2], dtype=torch.bool), logits=logits)

    def outputs(heard: Heard) -> list[Tensor]:
        # The network says what comes after each token of the prefix, too.
        assert heard.logits is not None
        last = heard.states[-1]
        skipped = len(prefix) - 1 if len(heard.states) > 1 else 0
        return [last, heard.logits[:, skipped:]]

    return largest_difference(network, hear, outputs)


register_form(
    NetworkForm(
        name="ctranslate2",
        holds="a model of CTranslate2, for faster-whisper: Whisper with its decoder, heads padded with zeros",
        write=_write,
        compare=_compare,
        opened_by="ctranslate2",
        tolerance=1e-4,
        refuses=_refuses,
        needs=check_ctranslate2,
    )
)
