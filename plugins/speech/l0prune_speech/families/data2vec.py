"""data2vec of audio (arXiv 2202.03555)."""

from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family

register_family(transformers_family("data2vec-audio", "data2vec: encoder, CTC, classes, x-vectors, frames"))
