"""Clusters of the teacher's layers that say much the same, found once from its hidden states.

Source: SKILL (arXiv 2402.16830): hierarchical clustering of layers by their similarity. Chosen here: the similarity of
two layers is the mean cosine of their hidden states, and clusters are joined by average linkage.

Legend: L layers, T frames, E width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from l0prune import ConfigError


class LayerClusters(nn.Module):
    """Which cluster each layer is in; kept in checkpoints.

    Args:
        depth: L; layers are 0 to L.
        count: Clusters, 1 to L + 1.
    """

    members: Tensor

    def __init__(self, depth: int, count: int) -> None:
        super().__init__()
        if not 1 <= count <= depth + 1:
            raise ConfigError(
                "no such number of clusters", where="speech.layer_clusters", got=count, expected=f"1 to {depth + 1}"
            )
        self.count = count
        self.register_buffer("members", torch.full((depth + 1,), -1))
        self._similarity = torch.zeros(depth + 1, depth + 1, dtype=torch.float64)
        self._frames = 0
        self._groups: tuple[tuple[int, ...], ...] = ()

    @property
    def known(self) -> bool:
        """Whether they have been found."""
        return bool(self.groups)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The layers of each cluster, ascending, clusters by their first layer; none where they are not known."""
        if not self._groups and int(self.members[0]) >= 0:
            # Read once: a GPU is not waited for at every step.
            members = self.members.tolist()
            self._groups = tuple(
                tuple(layer for layer, mine in enumerate(members) if mine == cluster)
                for cluster in dict.fromkeys(members)
            )
        return self._groups

    def add(self, states: list[Tensor]) -> None:
        """Count a batch. states: L + 1 tensors (clips, T, E)."""
        units = [nn.functional.normalize(state.float().flatten(0, 1), dim=-1) for state in states]
        stacked = torch.stack(units, dim=1)
        self._similarity += torch.einsum("tie,tje->ij", stacked, stacked).double().cpu()
        self._frames += stacked.shape[0]

    def find(self) -> None:
        """Cluster the layers by what was counted."""
        from sklearn.cluster import AgglomerativeClustering

        far = (1 - self._similarity / self._frames).clamp_min(0).fill_diagonal_(0).numpy()
        found = AgglomerativeClustering(n_clusters=self.count, metric="precomputed", linkage="average").fit(far)
        order = {cluster: number for number, cluster in enumerate(dict.fromkeys(found.labels_.tolist()))}
        self.members.copy_(torch.tensor([order[cluster] for cluster in found.labels_.tolist()]))
        self._groups = ()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._groups = ()
