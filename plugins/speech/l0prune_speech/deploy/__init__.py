"""Networks out: written for other stacks, made ready to run, measured."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.deploy.benching import contender, load
    from l0prune_speech.deploy.exporting import export_network
    from l0prune_speech.deploy.inference import for_inference
    from l0prune_speech.deploy.networks import NETWORK_FORMATS
    from l0prune_speech.deploy.own_networks import export_own

    __all__ = ["NETWORK_FORMATS", "contender", "export_network", "export_own", "for_inference", "load"]

_HOMES = {
    "benching": ("contender", "load"),
    "exporting": ("export_network",),
    "inference": ("for_inference",),
    "networks": ("NETWORK_FORMATS",),
    "own_networks": ("export_own",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
