"""w2v-BERT 2.0 (arXiv 2312.05187): pairs of log-mel frames in."""

from collections.abc import Mapping
from typing import Any

from l0prune_speech.families.position_tables import position_tables
from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family


def _extractor(stated: Mapping[str, Any]) -> Any:
    from transformers import SeamlessM4TFeatureExtractor

    bins = int(stated.get("feature_projection_input_dim", 160)) // 2
    return SeamlessM4TFeatureExtractor(feature_size=bins, num_mel_bins=bins)


register_family(
    transformers_family(
        "wav2vec2-bert",
        "w2v-BERT 2.0: encoder, CTC, classes, x-vectors, frames",
        extractor=_extractor,
        fixed=position_tables,
    )
)
