"""Networks out: written for other stacks, made ready to run, measured."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.deploy.benching import contender, load
    from l0prune_speech.deploy.calibration import Calibration, find_calibration
    from l0prune_speech.deploy.exporting import export_network
    from l0prune_speech.deploy.inference import for_inference
    from l0prune_speech.deploy.network_benching import own_contender
    from l0prune_speech.deploy.networks import NETWORK_FORMATS, is_export, opened_network
    from l0prune_speech.deploy.own_networks import export_own

    __all__ = [
        "NETWORK_FORMATS",
        "Calibration",
        "contender",
        "export_network",
        "export_own",
        "find_calibration",
        "for_inference",
        "is_export",
        "load",
        "opened_network",
        "own_contender",
    ]

_HOMES = {
    "calibration": ("Calibration", "find_calibration"),
    "benching": ("contender", "load"),
    "exporting": ("export_network",),
    "inference": ("for_inference",),
    "network_benching": ("own_contender",),
    "networks": ("NETWORK_FORMATS", "is_export", "opened_network"),
    "own_networks": ("export_own",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
