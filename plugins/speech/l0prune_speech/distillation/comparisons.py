"""What each kind of term compares: what is wanted of the teacher, and the pairs of tensors that a term is told.

Legend: B clips, T frames, D student width, E teacher width, K units.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from l0prune_speech.distillation.layer_clusters import LayerClusters
from l0prune_speech.distillation.targets import Wanted
from l0prune_speech.distillation.teacher_units import TeacherUnits, UnitHead
from l0prune_speech.encoder import Recording

Pairs = list[tuple[Tensor, Tensor]]
"""The student's and the teacher's, one pair a layer, cluster or set of units."""


class Comparison(nn.Module):
    """One kind of `Between`."""

    def wanted(self) -> Sequence[Wanted]:
        """What is wanted of the teacher."""
        raise NotImplementedError

    def pairs(self, heard: Recording, targets: Mapping[Wanted, Tensor]) -> Pairs:
        """What terms of this kind compare.

        Args:
            heard: What the student made of a batch.
            targets: What was wanted of the teacher.
        """
        raise NotImplementedError


class Steps(Comparison):
    """Input and output of layers, (B, T, 2, width).

    Args:
        layers: From 1 on. The input of layer 1 is taken to be layer 0, before the positional convolution.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        self.layers = tuple(layers)

    def wanted(self) -> Sequence[Wanted]:
        """The states of the layers and of those before."""
        return sorted({near for layer in self.layers for near in (layer - 1, layer)})

    def pairs(self, heard: Recording, targets: Mapping[Wanted, Tensor]) -> Pairs:
        """A pair a layer."""
        return [
            (
                torch.stack([heard.states[layer - 1], heard.states[layer]], dim=2),
                torch.stack([targets[layer - 1], targets[layer]], dim=2),
            )
            for layer in self.layers
        ]


class Relations(Comparison):
    """Attention maps or relations of values, (B, T, T).

    Args:
        kind: "map" or "values".
        layers: From 1 on.
    """

    def __init__(self, kind: str, layers: Sequence[int]) -> None:
        super().__init__()
        self.kind, self.layers = kind, tuple(layers)

    def wanted(self) -> Sequence[Wanted]:
        """The relations of the layers."""
        return [f"{self.kind} {layer}" for layer in self.layers]

    def pairs(self, heard: Recording, targets: Mapping[Wanted, Tensor]) -> Pairs:
        """A pair a layer. One whose heads have all left or closed is at distance 0, by the teacher's own relation."""
        found = heard.maps if self.kind == "map" else heard.values
        pairs = []
        for layer in self.layers:
            theirs = targets.get(f"{self.kind} {layer}")
            if theirs is None:
                # The teacher's own attention is not there.
                continue
            ours = found.get(layer)
            if ours is None:
                pairs.append((theirs, theirs))
            else:
                pairs.append((torch.where(ours.detach().sum(-1, keepdim=True) > 0, ours, theirs.to(ours)), theirs))
        return pairs


class Means(Comparison):
    """Means of the states of clusters of layers, (B, T, E); one projection, the identity at first, serves all clusters.

    Args:
        clusters: Of the teacher's layers.
        projection: D -> E.
    """

    def __init__(self, clusters: LayerClusters, projection: nn.Module) -> None:
        super().__init__()
        self.clusters, self.projection = clusters, projection

    def wanted(self) -> Sequence[Wanted]:
        """The mean of each cluster."""
        return [_mean_name(group) for group in self.clusters.groups]

    def pairs(self, heard: Recording, targets: Mapping[Wanted, Tensor]) -> Pairs:
        """A pair a cluster."""
        return [
            (
                self.projection(torch.stack([heard.states[layer] for layer in group]).mean(0)),
                targets[_mean_name(group)],
            )
            for group in self.clusters.groups
        ]


class Units(Comparison):
    """Logits of units (B, T, K) from the student's last layer, and the teacher's units (B, T).

    Args:
        units: Of some layers of the teacher.
        width: D.
    """

    def __init__(self, units: TeacherUnits, width: int) -> None:
        super().__init__()
        self.units = units
        self.heads = nn.ModuleList(UnitHead(width, units.count) for _ in units.layers)

    def wanted(self) -> Sequence[Wanted]:
        """The states of the layers that have units."""
        return self.units.layers

    def pairs(self, heard: Recording, targets: Mapping[Wanted, Tensor], hidden: Tensor | None = None) -> Pairs:
        """A pair a layer with units; of hidden frames (B, T) alone where they are given, as one clip (1, frames, K)."""
        last = heard.states[-1] if hidden is None else heard.states[-1][hidden][None]
        pairs = []
        for number, (layer, head) in enumerate(zip(self.units.layers, self.heads, strict=True)):
            labels = self.units.labels(targets[layer], number)
            pairs.append((head(last), labels if hidden is None else labels[hidden][None]))
        return pairs


def _mean_name(group: Sequence[int]) -> str:
    return f"mean {' '.join(map(str, group))}"
