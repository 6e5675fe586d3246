"""Well-known architectures with random weights: what makes them, and what they are run on."""

from zoo_networks.building import built
from zoo_networks.images import IMAGE_NETWORKS
from zoo_networks.inputs import Network
from zoo_networks.sound import SOUND_NETWORKS
from zoo_networks.text import TEXT_NETWORKS

__all__ = ["ZOO", "Network", "built"]

_WIDTHS: dict[str, Network] = {**IMAGE_NETWORKS, **TEXT_NETWORKS, **SOUND_NETWORKS}
ZOO: dict[str, Network] = {
    **_WIDTHS,
    # Depth beside widths.
    **{f"{name}, by blocks": _WIDTHS[name]._replace(depth="blocks") for name in ("ResNet-18", "ViT (timm)", "BERT")},
    **{
        f"{name}, by branches": _WIDTHS[name]._replace(depth="branches") for name in ("Llama (grouped queries)", "BART")
    },
}
