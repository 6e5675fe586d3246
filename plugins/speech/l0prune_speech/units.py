"""The kinds of unit of an encoder that can be pruned: names, what pictures call them, and which are pruned by default.

`encoder/groups.py` finds the units of each kind. Imports nothing heavy.
"""

from l0prune.plugin import UnitKind

_LAYER = "transformer layer"

UNITS = {
    "conv": UnitKind(title="Convolution channels", axis="convolution"),
    "head": UnitKind(title="Attention heads", axis=_LAYER),
    "ffn": UnitKind(title="FFN units", axis=_LAYER),
    "attention": UnitKind(title="Attention blocks", axis=_LAYER),
    "feed_forward": UnitKind(title="FFN blocks", axis=_LAYER),
}
"""By name. The last two are whole residual blocks."""

DEFAULT_UNITS = ("conv", "head", "ffn")
