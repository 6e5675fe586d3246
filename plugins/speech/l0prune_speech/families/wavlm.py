"""WavLM (arXiv 2110.13900): its bare encoder in torchaudio's layout, and with a head by transformers' classes."""

from dataclasses import replace

from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family

register_family(
    replace(
        transformers_family("wavlm", "WavLM: encoder, CTC, classes, x-vectors, frames"),
        layout="torchaudio",
    )
)
