"""UniSpeech (arXiv 2101.07597) and UniSpeech-SAT (arXiv 2110.05752)."""

from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family

register_family(transformers_family("unispeech", "UniSpeech: encoder, CTC, classes"))
register_family(transformers_family("unispeech-sat", "UniSpeech-SAT: encoder, CTC, classes, x-vectors, frames"))
