"""wav2vec 2.0 with Conformer layers (arXiv 2005.08100)."""

from l0prune_speech.families.position_tables import position_tables
from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family

register_family(
    transformers_family(
        "wav2vec2-conformer",
        "wav2vec 2.0 with Conformer layers: encoder, CTC, classes, x-vectors, frames",
        fixed=position_tables,
    )
)
