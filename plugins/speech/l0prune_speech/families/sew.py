"""SEW (arXiv 2109.06870)."""

from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family

register_family(transformers_family("sew", "SEW: encoder, CTC, classes"))
