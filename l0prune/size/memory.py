"""Peak memory of a forward pass as a metric: weights, and the tensors that are in memory with them."""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from l0prune.discovery import Allocation, Trace, trace
from l0prune.errors import ConfigError, GroupError, TraceError
from l0prune.groups import PruneGroup
from l0prune.size.disk import BYTES, MB
from l0prune.size.macs import TracedLengths
from l0prune.size.metric import Metric, Subject, register_metric
from l0prune.size.parameters import tensor_monomials
from l0prune.size.peak import PeakSize, undominated
from l0prune.size.polynomial import Monomial, SizeModel


class Memory(Metric):
    """Bytes of parameters and buffers, of the inputs, and of the most that a forward pass holds beside them.

    Counted are the tensors that PyTorch's operators make in evaluation mode without gradients, from the operator that
    makes one until nothing refers to it any more. What a kernel takes for itself while it runs is not counted.
    """

    name, noun, units = "memory", "bytes of peak memory", BYTES

    def size(self, subject: Subject) -> SizeModel:
        """In bytes, shown in MB."""
        try:
            found = trace(subject.model, subject.observe, training=False, time_limit=subject.time_limit, memory=True)
            return memory_size(subject.model, subject.groups, found)
        except (TraceError, GroupError) as error:
            raise ConfigError("metric cannot be counted", got=repr(self.name), hint=str(error)) from error


def memory_size(model: nn.Module, groups: Sequence[PruneGroup], found: Trace) -> PeakSize:
    """Peak memory of a traced forward pass in kept counts: a polynomial for weights, and one for each moment.

    Args:
        model: The traced model.
        groups: Its prune groups.
        found: `trace` of the model with `memory`.
    """
    weights = {name: tensor for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    always = tensor_monomials(
        shapes, groups, factors_of={name: tensor.element_size() for name, tensor in weights.items()}
    )
    lengths = TracedLengths(groups, found)
    parts = [lengths.monomials(one.module, one.factor, one.extents) for one in found.allocations]
    moments: list[Counter[Monomial]] = []
    for live in _fullest(found.allocations):
        moment: Counter[Monomial] = Counter()
        for number in live:
            moment.update(parts[number])
        moments.append(moment)
    return PeakSize(groups, always, undominated(moments), counts="MB of memory", unit=MB)


def _fullest(allocations: Sequence[Allocation]) -> list[list[int]]:
    """The numbers of the allocations that are there together, each time before one of them goes."""
    end = 1 + max((one.born for one in allocations), default=0)
    deaths = [end if one.died is None else one.died for one in allocations]
    births = sorted(range(len(allocations)), key=lambda number: allocations[number].born)
    found, live, begun = [], [], 0
    for last in sorted(set(deaths)):
        while begun < len(births) and allocations[births[begun]].born < last:
            live.append(births[begun])
            begun += 1
        found.append(live)
        live = [number for number in live if deaths[number] > last]
    return found


register_metric(Memory())
