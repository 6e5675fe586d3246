"""Hard Concrete gates, the networks they stand in, and the controllers that close them."""

from l0prune.gates.controller import Controller
from l0prune.gates.controller_by_name import make_controller
from l0prune.gates.gated_model import GatedModel
from l0prune.gates.gates import Gates

__all__ = ["Controller", "GatedModel", "Gates", "make_controller"]
