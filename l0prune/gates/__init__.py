"""Hard Concrete gates, the networks they stand in, and what closes them while weights are trained."""

from l0prune.gates.controller import Controller, Sparsity
from l0prune.gates.elastic import check_between
from l0prune.gates.gated_model import GatedModel
from l0prune.gates.gates import Gates

__all__ = ["Controller", "GatedModel", "Gates", "Sparsity", "check_between"]
