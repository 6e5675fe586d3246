"""Parakeet: FastConformer encoders (arXiv 2305.05084) with CTC."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from l0prune_speech.families.position_tables import position_tables
from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family


def _extractor(stated: Mapping[str, Any]) -> Any:
    from transformers import ParakeetFeatureExtractor

    bins = (stated.get("encoder_config") or stated).get("num_mel_bins", 80)
    return ParakeetFeatureExtractor(feature_size=bins)


def _frames(model: nn.Module, lengths: Tensor) -> Tensor:
    for module in model.modules():
        count = getattr(module, "_get_subsampling_output_length", None)
        if count is not None:
            return count(lengths)
    return lengths


for _name, _about in (("parakeet_ctc", "Parakeet: CTC"), ("parakeet_encoder", "Parakeet: the FastConformer encoder")):
    register_family(
        transformers_family(
            _name, _about, encoder="encoder", extractor=_extractor, frames=_frames, fixed=position_tables
        )
    )
