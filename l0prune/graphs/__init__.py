"""The graph form: a network as a torch.fx graph in which every size follows from the weights."""

from l0prune.graphs.files import graph_from_json, graph_to_json
from l0prune.graphs.form import GraphForm, bare, graph_form

__all__ = ["GraphForm", "bare", "graph_form", "graph_from_json", "graph_to_json"]
