"""Moonshine (arXiv 2410.15608): an encoder of waveforms of any length, and a decoder."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family


def _extractor(_stated: Mapping[str, Any]) -> Any:
    from transformers import Wav2Vec2FeatureExtractor

    return Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)


def _attention(model: nn.Module) -> tuple[str, ...]:
    """Its attention takes the number of heads from the settings of all layers: heads stay."""
    return tuple(name for name, module in model.named_modules() if type(module).__name__ == "MoonshineAttention")


def _frames(_model: nn.Module, lengths: Tensor) -> Tensor:
    """Of three convolutions: kernels 127, 7, 3 and strides 64, 3, 2."""
    for kernel, stride in ((127, 64), (7, 3), (3, 2)):
        lengths = (lengths - kernel) // stride + 1
    return lengths


register_family(
    transformers_family(
        "moonshine",
        "Moonshine: encoder alone, encoder with decoder",
        encoder="model.encoder",
        extractor=_extractor,
        frames=_frames,
        fixed=_attention,
    )
)
