"""Gates on a model, acting on the weights that consume the units.

Legend: N units of all groups, one after the other.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.config import GateConfig
from l0prune.errors import GroupError
from l0prune.gates.attachment import Attachment
from l0prune.gates.gates import Gates
from l0prune.graphs import GraphForm
from l0prune.groups import PruneGroup, check_groups
from l0prune.removal import RemovalPlan, apply_plan, make_plan
from l0prune.size import (
    Budget,
    BudgetRow,
    Facts,
    SizeModel,
    Subject,
    Target,
    budget_for,
    checked_facts,
    kept_indices,
    parameter_size,
)
from l0prune.support import copied, model_shapes, owners

# How far the expected size may be above the budget at the cut without a word, as a share of the budget.
_BEHIND = 0.02


class GatedModel(nn.Module):
    """A model with gates on its prune groups; `model` is trained as before.

    In training mode each forward pass of this module draws new gates, unless the last ones still wait for their
    backward pass; each call of `gates.sample()` does so in any case. In evaluation mode the gates are the deterministic
    selection that meets the target: outputs are those of the pruned network.

    Args:
        model: The dense model; gates are attached to it in place.
        groups: Its prune groups.
        target_sparsity: Share of the size to remove, in (0, 1).
        config: Gate settings.
        size_model: The size that the target counts; the parameters by default.
        more: Further budgets, which the selection meets too.
        form: Makes a graph of the dense model, if that is cut instead of the model itself.

    Raises:
        GroupError: A group does not fit the model; the model is untouched then.
        TargetError: The target is out of range or more than can be removed.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[PruneGroup],
        *,
        target_sparsity: float,
        config: GateConfig | None = None,
        size_model: SizeModel | None = None,
        more: Sequence[Budget] = (),
        form: GraphForm | None = None,
    ) -> None:
        super().__init__()
        shapes = model_shapes(model)
        check_groups(groups, shapes)
        self.model = model
        self.form = form
        self.groups = tuple(groups)
        self.parameter_model = parameter_size(model, groups)
        self.size_model = size_model or self.parameter_model
        self.target_sparsity = target_sparsity
        self.shapes = shapes
        self.dense_groups, self.dense_shapes = self.groups, shapes
        self.here = np.arange(sum(group.units for group in groups))
        """(N,) the units by their numbers in the dense model: some may be gone for good."""
        config = config or GateConfig()
        budget = budget_for(self.size_model, target_sparsity, round_to=config.multiple)
        # Gates are real numbers, whatever else the model computes with.
        reference = next((p for p in model.parameters() if p.is_floating_point()), None)
        if reference is None:
            raise GroupError("the model has no floating-point parameter to put gates on", where=type(model).__name__)
        self.gates = Gates(groups, self.size_model, budget, config, reference, more)
        self._attachment = Attachment(self.model, self.groups, self.gates, self.shapes)

    def forward(self, *args, **kwargs):
        """The model's own forward; in training mode with gates drawn for it."""
        if self.training:
            self.gates.draw()
        return self.model(*args, **kwargs)

    def expected_sparsity(self) -> Tensor:
        """1 - expected size / dense size; float64 scalar, differentiable in the gates."""
        return 1 - self.size_model.expected(self.gates.keep_probabilities()) / self.size_model.total

    def expected_sparsities(self) -> Tensor:
        """The same of each budget's size, the leading one first; (M,) float64, differentiable in the gates."""
        kept = self.gates.keep_probabilities()
        sizes = [self.size_model, *(budget.size for budget in self.gates.more)]
        return torch.stack([1 - size.expected(kept) / size.total for size in sizes])

    @torch.no_grad()
    def reached(self, target: float, margin: float) -> bool:
        """Whether the expected sparsities are the final ones, but for a margin, where `target` is asked for now."""
        if target < self.target_sparsity:
            return False
        if not self.gates.more:
            return float(self.expected_sparsity()) >= target - margin
        asked = self.expected_sparsities().new_tensor([target, *(budget.sparsity for budget in self.gates.more)])
        return bool((self.expected_sparsities() >= asked - margin).all())

    def meet(self, target: Target, subject: Subject) -> Facts:
        """Move the budgets so that every target is met whose metric measures at the cut.

        Args:
            target: The target, with further ones.
            subject: With a copy of the dense model.

        Returns:
            Facts for the report.
        """
        facts: Facts = {}
        names = {budget.name: number for number, budget in enumerate(self.gates.more, start=1)}
        for one in (target, *target.more):
            if one is target and one.metric.measured_at_cut:
                facts |= checked_facts(one.metric.name, one.metric.meet(self, one, subject))
            elif one.metric.measured_at_cut and one.metric.name in names:
                cut = _OneOfSeveral(self, names[one.metric.name])
                facts |= checked_facts(one.metric.name, one.metric.meet(cut, one, subject))
        return facts

    def budget_facts(self, target: Target) -> tuple[list[BudgetRow], float | None]:
        """For the report: what each of several budgets says of the selection, and how far that may be from the best.

        Nothing, and None, where there is one budget.
        """
        if not target.more:
            return [], None
        rows, gap = self.gates.explained([target.metric.name, *(budget.name for budget in self.gates.more)])
        known, free = {row.metric for row in rows}, [one for one in target.more if one.sparsity <= 0]
        kept = kept_indices(self.gates.select(), self.groups)
        counts = np.array([len(kept[group.name]) for group in self.groups])
        for one in free:
            # Never exceeded, whatever is removed.
            assert one.metric.name not in known
            row = BudgetRow(
                metric=one.metric.name,
                counts=one.size.counts,
                unit=one.size.unit,
                dense=int(one.size.total),
                budget=one.most_for(1),
                size=one.size.exact(counts),
                binds=False,
                alone={one.metric.name: int(one.size.total)},
                alone_units=1.0,
            )
            rows.append(row)
        return rows, gap

    @torch.no_grad()
    def behind(self) -> str:
        """What to say before a cut where the gates are far from the target yet; else nothing."""
        left, budget = 1 - float(self.expected_sparsity()), 1 - self.target_sparsity
        if self.gates.more:
            asked = [self.target_sparsity, *(one.sparsity for one in self.gates.more)]
            found = zip(self.expected_sparsities().tolist(), asked, strict=True)
            left, budget = max(((1 - one, 1 - wish) for one, wish in found), key=lambda pair: pair[0] / pair[1])
        if left <= budget * (1 + _BEHIND):
            return ""
        return (
            f"the gates are at an expected sparsity of {1 - left:.3f}, the target is {1 - budget:.3f}: the "
            f"expected size is {left / budget - 1:.0%} above the budget, and the cut removes units that training still "
            'used; train longer, or choose the controller "projected", which is at the target at each step'
        )

    def plan(self, kept: np.ndarray | None = None) -> RemovalPlan:
        """The removal plan of the deterministic selection, or of a given one (N,), in the dense model's indices."""
        kept = self.gates.select() if kept is None else kept
        units = np.zeros(sum(group.units for group in self.dense_groups), dtype=bool)
        units[self.here[kept]] = True
        return make_plan(self.dense_groups, kept_indices(units, self.dense_groups), self.dense_shapes)

    def next_plan(self, kept: np.ndarray) -> RemovalPlan:
        """The same for the model as it is now, some units of which may be gone."""
        return make_plan(self.groups, kept_indices(kept, self.groups), self.shapes)

    def gate_values(self) -> dict[str, Tensor]:
        """The deterministic gate values (units,) by group name."""
        values = self.gates._fixed or self.gates.decide()
        return {group.name: value.detach() for group, value in zip(self.groups, values, strict=True)}

    def pruned(self) -> tuple[nn.Module, RemovalPlan]:
        """A copy of the model with the selection removed, and the plan; this model is untouched."""
        values = self.gate_values()
        kept = np.concatenate([value.cpu().numpy() > 0 for value in values.values()])
        # In training mode some weights change whenever they are looked at: a spectral norm is iterated.
        twin = copied(self).eval()
        twin.detach()
        return apply_plan(self.as_cut(twin.model), self.plan_of_cut(kept), values).eval(), self.plan(kept)

    def as_cut(self, dense: nn.Module) -> nn.Module:
        """What is cut: the dense model, or its graph with the same tensors."""
        return dense if self.form is None else self.form.of(dense)

    def plan_of_cut(self, kept: np.ndarray) -> RemovalPlan:
        """As `next_plan`, for `as_cut`."""
        plan = self.next_plan(kept)
        return plan if self.form is None else self.form.plan(plan)

    def folded(self) -> nn.Module:
        """A dense copy without gates, whose weights the deterministic gate values are folded into.

        It computes what this model does in evaluation mode, save for gated norms: they take their statistics over
        closed units too. This model is untouched.
        """
        values = self.gate_values()
        # In training mode some weights change whenever they are looked at: a spectral norm is iterated.
        twin = copied(self).eval()
        twin.detach()
        everything = twin.next_plan(np.ones(len(self.here), dtype=bool))
        model = apply_plan(twin.model, everything, values).eval()
        held = owners(model)
        with torch.no_grad():
            for group in self.groups:
                for tensor in group.alive_with if not values[group.name].any() else ():
                    module, name = held[tensor][0]
                    getattr(module, name).zero_()
        return model

    def shrink(self, kept: np.ndarray) -> tuple[RemovalPlan, dict[str, tuple[nn.Parameter, nn.Parameter | None]]]:
        """Cut units out of the model in place, without folding: gates stay on what is left. Parameters are new ones.

        Args:
            kept: (N,) bool, True for units that are left.

        Returns:
            The plan, in the indices of the model as it was; by its name in the plan, each parameter before and after.

        Raises:
            GroupError: An emptied block holds all that reads another group's units; nothing is cut then.
        """
        plan = self.next_plan(kept)
        remaining = plan.remaining_groups()
        self._attachment.take_off()
        before = dict(self.model.named_parameters())
        after = dict(apply_plan(self.model, plan).named_parameters())
        # Around one emptied block all groups go.
        kept = np.concatenate([np.isin(np.arange(group.units), plan.kept[group.name]) for group in self.groups])
        numbers = [g for g, group in enumerate(self.groups) if plan.kept[group.name]]
        self.groups, self.shapes, self.here = remaining, plan.pruned_shapes(), self.here[kept]
        same = self.size_model is self.parameter_model
        self.parameter_model = self.parameter_model.restricted(self.groups, numbers)
        self.size_model = self.parameter_model if same else self.size_model.restricted(self.groups, numbers)
        more = [budget.size.restricted(self.groups, numbers) for budget in self.gates.more]
        self.gates.shrink(kept, self.groups, self.size_model, more)
        self._attachment = Attachment(self.model, self.groups, self.gates, self.shapes)
        return plan, {name: (parameter, after.get(name)) for name, parameter in before.items()}

    @property
    def first_gate(self) -> nn.Module:
        """A module that stands in the model as long as gates are attached."""
        return self._attachment.first_gate

    def detach(self) -> nn.Module:
        """Take the gates off again, without folding them in; returns the dense model."""
        self._attachment.take_off()
        return self.model


class _OneOfSeveral:
    """A gated model as the metric of one of its further budgets sees it before the cut."""

    def __init__(self, gated: GatedModel, number: int) -> None:
        self._gated, self._number = gated, number
        self.size_model: SizeModel = gated.gates.more[number - 1].size
        self.gates = self

    @property
    def budget(self) -> int:
        return self._gated.gates.more[self._number - 1].most

    @property
    def config(self) -> GateConfig:
        return self._gated.gates.config

    @property
    def groups(self) -> tuple[PruneGroup, ...]:
        return self._gated.gates.groups

    def select(self) -> np.ndarray:
        return self._gated.gates.select()

    def allow(self, budget: int) -> None:
        self._gated.gates.allow(budget, self._number)

    def pruned(self) -> tuple[nn.Module, RemovalPlan]:
        return self._gated.pruned()
