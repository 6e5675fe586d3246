"""Networks with a class of their own, out: one file a form, and what opens and runs them again."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.deploy.networks.opened import is_export, open_export, opened_network
    from l0prune_speech.deploy.networks.registry import NETWORK_FORMATS, NetworkForm, form_named, forms, register_form
    from l0prune_speech.deploy.networks.runners import OnnxRunner

    __all__ = [
        "NETWORK_FORMATS",
        "NetworkForm",
        "OnnxRunner",
        "form_named",
        "forms",
        "is_export",
        "open_export",
        "opened_network",
        "register_form",
    ]

_HOMES = {
    "opened": ("is_export", "open_export", "opened_network"),
    "registry": ("NETWORK_FORMATS", "NetworkForm", "form_named", "forms", "register_form"),
    "runners": ("OnnxRunner",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
