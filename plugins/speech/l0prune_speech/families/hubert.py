"""HuBERT (arXiv 2106.07447): its bare encoder in torchaudio's layout, and every other form by transformers' classes."""

from dataclasses import replace

from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family

register_family(replace(transformers_family("hubert", "HuBERT: encoder, CTC, classes"), layout="torchaudio"))
