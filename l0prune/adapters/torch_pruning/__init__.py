"""For users of torch-pruning: its pruners with our gates, our pruning with its names, groups from its graphs.

Only files in this folder import torch_pruning.
"""

from l0prune.adapters.dependency_graphs import groups_of_graph
from l0prune.adapters.torch_pruning.importance import L0Importance, without_gates
from l0prune.adapters.torch_pruning.pruner import Pruner

__all__ = ["L0Importance", "Pruner", "groups_of_graph", "without_gates"]
