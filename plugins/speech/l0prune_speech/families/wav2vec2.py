"""wav2vec 2.0 (arXiv 2006.11477) and its kin of the same classes: XLS-R, MMS with adapters."""

from dataclasses import replace

from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family

register_family(
    replace(
        transformers_family("wav2vec2", "wav2vec 2.0, XLS-R, MMS: encoder, CTC, classes, x-vectors, frames"),
        layout="torchaudio",
    )
)
