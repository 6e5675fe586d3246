"""Each method makes a trained network small, in place of or before further training."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch_pruning
from timm.models.vision_transformer import Attention as FusedAttention
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0bench.digit_pruning.data import Labelled, split, train
from l0bench.digit_pruning.networks import Attention
from l0bench.digit_pruning.trial import Trial
from l0bench.learning_rate import rate_at, set_rate
from l0bench.one_shot_scores import by_activation, by_chance, by_magnitude, by_taylor
from l0bench.wrap_settings import wrap_settings
from l0prune import TargetError
from l0prune.measuring import parameters
from l0prune.removal import make_plan
from l0prune.size import budget_for, kept_indices, select
from l0prune.support import model_shapes

Facts = dict[str, Any]
_IMPORTANCE_BATCHES = 16
_ROUNDS = 200


def example() -> Tensor:
    """Eight images."""
    return split()["train"][0][:8]


@torch.no_grad()
def training_loss(model: nn.Module, draws: int = 1) -> float:
    """Of a copy in training mode on all training images: batch norms and gates as the training sees them."""
    images, labels = split()["train"]
    model = copy.deepcopy(model).train()
    return sum(float(F.cross_entropy(model(images), labels)) for _ in range(draws)) / draws


def by_wrap(dense: nn.Module, trial: Trial, data: Iterator[Labelled]) -> tuple[nn.Module, Facts]:
    """Gates for some of the steps, recovery for the others, under one schedule of the learning rate."""
    model = copy.deepcopy(dense)
    gated_steps, given = wrap_settings(trial.steps, trial.settings)
    if given.get("start") is not None:
        looked_at = list(islice(data, _IMPORTANCE_BATCHES))
        given |= {"batches": looked_at, "loss": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])}
    pruner = l0prune.wrap(model, example(), target_sparsity=trial.size / 100, round_to=1, **given)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=trial.rate, weight_decay=0.01), fused=True)
    tracked = []
    model.train()
    for step in range(gated_steps):
        set_rate(optimizer.param_groups[:1], rate_at(step, trial.steps, trial.rate))
        images, labels = next(data)
        optimizer.zero_grad()
        (F.cross_entropy(model(images), labels) + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
        now = pruner.sparsity
        tracked.append(abs(now.expected - now.target))
    expected, before = pruner.sparsity.expected, training_loss(model, draws=8)
    with warnings.catch_warnings():
        # That the gates are behind stands in the row.
        warnings.simplefilter("ignore", UserWarning)
        pruned = pruner.finalize()
    facts: Facts = {
        "gated_steps": gated_steps,
        "expected_sparsity": expected,
        "largest_deviation": max(tracked[10:], default=None),
        "loss_before_cut": before,
        "loss_after_cut": training_loss(pruned),
    }
    train(pruned, data, rate=trial.rate, steps=trial.steps, done=gated_steps)
    return pruned, facts


def at_once(begin: Callable[..., nn.Module]) -> Callable[..., tuple[nn.Module, Facts]]:
    """A method that cuts first and trains on for all of the steps."""

    def run(dense: nn.Module, trial: Trial, data: Iterator[Labelled]) -> tuple[nn.Module, Facts]:
        pruned = begin(copy.deepcopy(dense), trial, data)
        facts = {"loss_before_cut": training_loss(dense), "loss_after_cut": training_loss(pruned)}
        train(pruned, data, rate=trial.rate, steps=trial.steps)
        return pruned, facts

    return run


def _losses(data: Iterator[Labelled]) -> Iterator[Callable[[nn.Module], Tensor]]:
    for images, labels in islice(data, _IMPORTANCE_BATCHES):
        yield lambda model, x=images, y=labels: F.cross_entropy(model(x), y)


def scored_by(name: str) -> Callable[..., nn.Module]:
    """A cut of the project's own groups, by one of `one_shot_scores`."""

    def begin(model: nn.Module, trial: Trial, data: Iterator[Labelled]) -> nn.Module:
        found = l0prune.inspect(model, example())
        scores = _scores(name, copy.deepcopy(model), found.groups, trial, data)
        kept = select(scores, found.groups, found.parameter_model, budget_for(found.parameter_model, trial.size / 100))
        plan = make_plan(found.groups, kept_indices(kept, found.groups), model_shapes(model))
        return l0prune.apply_plan(model, plan)

    return begin


def _scores(
    name: str, model: nn.Module, groups: tuple[l0prune.PruneGroup, ...], trial: Trial, data: Iterator[Labelled]
) -> np.ndarray:
    match name:
        case "magnitude":
            return by_magnitude(model, groups)
        case "taylor":
            return by_taylor(model.train(), groups, _losses(data))
        case "activation":
            return by_activation(model.eval(), groups, _losses(data))
        case _:
            return by_chance(groups, trial.seed)


def by_torch_pruning(importance: str) -> Callable[..., nn.Module]:
    """Its global pruner in small steps, until the parameters meet the same budget."""

    def begin(model: nn.Module, trial: Trial, data: Iterator[Labelled]) -> nn.Module:
        budget = int(round(parameters(model) * (1 - trial.size / 100), 6))
        score = {
            "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
            "taylor": torch_pruning.importance.GroupTaylorImportance,
        }[importance]()
        if importance == "taylor":
            model.train().zero_grad()
            for loss in _losses(data):
                loss(model).backward()
        with warnings.catch_warnings():
            # It says that it takes learnt positions to be as wide as the stream, which they are.
            warnings.simplefilter("ignore", UserWarning)
            pruner = torch_pruning.pruner.BasePruner(
                model.eval(),
                example(),
                score,
                global_pruning=True,
                pruning_ratio=0.99,
                max_pruning_ratio=0.97,
                iterative_steps=_ROUNDS,
                ignored_layers=[m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 10],
                num_heads=_heads(model),
                prune_num_heads=True,
                channel_groups={},
                customized_pruners={},
                root_module_types=[nn.Conv2d, nn.Linear],
            )
        while parameters(model) > budget and pruner.current_step < _ROUNDS:
            pruner.step()
            _mend(model, pruner.num_heads)
        model.zero_grad(set_to_none=True)
        if parameters(model) > budget:
            raise TargetError("torch-pruning does not reach the budget", got=parameters(model), expected=budget)
        return model

    return begin


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    fused: dict[nn.Module, int] = {m.qkv: m.num_heads for m in model.modules() if isinstance(m, FusedAttention)}
    apart = [m for m in model.modules() if isinstance(m, Attention)]
    return fused | {projection: m.num_heads for m in apart for projection in (m.query, m.key, m.value)}


def _mend(model: nn.Module, heads: Mapping[nn.Module, int]) -> None:
    for module in model.modules():
        if isinstance(module, FusedAttention):
            module.num_heads = heads[module.qkv]
            module.attn_dim = module.qkv.out_features // 3
            module.head_dim = module.attn_dim // module.num_heads
        elif isinstance(module, Attention):
            module.num_heads = heads[module.query]
            module.head_dim = module.query.out_features // module.num_heads


METHODS: Mapping[str, Callable[..., tuple[nn.Module, Facts]]] = {
    "wrap": by_wrap,
    **{name: at_once(scored_by(name)) for name in ("taylor", "magnitude", "activation", "random")},
    "torch-pruning-taylor": at_once(by_torch_pruning("taylor")),
    "torch-pruning-magnitude": at_once(by_torch_pruning("magnitude")),
}
