"""Moonshine (arXiv 2410.15608): an encoder of waveforms of any length, and a decoder."""

from collections.abc import Mapping
from typing import Any

from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family


def _extractor(_stated: Mapping[str, Any]) -> Any:
    from transformers import Wav2Vec2FeatureExtractor

    return Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)


register_family(
    transformers_family(
        "moonshine", "Moonshine: encoder alone, encoder with decoder", encoder="model.encoder", extractor=_extractor
    )
)
