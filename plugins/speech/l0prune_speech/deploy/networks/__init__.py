"""Networks with a class of their own, out: one file a form, and what opens and runs them again."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.deploy.networks.registry import NETWORK_FORMATS, NetworkForm, form_named, forms, register_form

    __all__ = ["NETWORK_FORMATS", "NetworkForm", "form_named", "forms", "register_form"]

_HOMES = {
    "registry": ("NETWORK_FORMATS", "NetworkForm", "form_named", "forms", "register_form"),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
