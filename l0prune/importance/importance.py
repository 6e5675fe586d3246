"""Importances: how much each unit matters, said without training.

What they are was chosen on the networks of benchmarks/training_free.py, by accuracy right after the cut and without a
repair (two or three seeds):

- Squares over single examples, where these can be told apart, beat squares over batches, in which gradients cancel out:
  0.44 against 0.20 for the convolutional network at 75 %.
- Magnitude and Fisher rank better per parameter: the square of the magnitude 0.95 against 0.84 (convolutions, 50 %),
  Fisher 0.84 against 0.78 (vision transformer, 50 %). Taylor ranks better without: 0.42 against 0.38 over all networks
  at 75 %.
- A unit's share of the variance of what reads it beats its variance by a little at 25 and 50 %.

Legend: N units of all groups, one after the other; U units of a group, n examples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.calibration import Forward, as_batches, run_on, with_open_attention
from l0prune.config import IMPORTANCES
from l0prune.errors import ConfigError, DataError, nearest
from l0prune.groups import PruneGroup
from l0prune.importance.contributions import contributions
from l0prune.importance.gate_gradients import gate_gradients, of_weight
from l0prune.size import SizeModel, parameter_size, split_by_group, unit_sizes
from l0prune.support import evaluating, known_arguments, plain_attention

Importance = str | Callable[[nn.Module, Sequence[PruneGroup]], Any]
"""A name, or a function of model and groups that returns N numbers, or those of each group by its name."""

LOSS_BASED = ("taylor", "fisher")
"""These need a loss."""
BATCH_BASED = ("activation", *LOSS_BASED)
"""These need calibration batches."""
_NO_GRADIENT = 1e-5
"""Of the loss: the sum of all units' first-order terms where there is nothing but rounding."""


@known_arguments
def importances(
    model: nn.Module,
    groups: Sequence[PruneGroup],
    importance: Importance = "magnitude",
    *,
    size_model: SizeModel | None = None,
    batches: Iterable[Any] | None = None,
    loss: Forward | None = None,
    forward_fn: Forward | None = None,
    seed: int = 0,
) -> np.ndarray:
    """How much each unit of the groups matters: the higher, the later it should go.

    - "magnitude": the sum of squares of all weights that go with the unit, per parameter.
    - "activation": the share of the unit in what the layers that read it compute, by variance, summed over them.
    - "taylor": the first-order change of the loss without the unit, |sum of gradient times weight| over what reads it,
      as a mean over examples.
    - "fisher": the mean of the square of the same, per parameter: the change to second order, from the empirical Fisher
      information.
    - "random": uniform in [0, 1), from `seed`.

    Whatever runs the model does so in evaluation mode, and leaves it, its mode and its gradients as they were.

    Args:
        model: The model, without gates.
        groups: Its prune groups.
        importance: One of these names, or a function `f(model, groups)` of your own that returns N numbers, or
            {group name: its units' numbers}.
        size_model: What a unit costs, where an importance counts per unit of size; the parameters by default.
        batches: Calibration batches, for "activation", "taylor" and "fisher". A few are enough.
        loss: `loss(model, batch)` returns a scalar, for "taylor" and "fisher"; a mean over the batch's examples.
        forward_fn: Runs the model on a batch, `forward_fn(model, batch)`, where there is no loss; by default the model
            gets a batch as it gets example inputs.
        seed: Of "random".

    Returns:
        (N,) float64, finite.

    Raises:
        ConfigError: The importance is unknown, lacks batches or a loss, or gives other numbers than one for each unit.
        DataError: A batch does not fit the model, the loss is no scalar, or it has no gradient.
        GroupError: "activation" cannot see what reads a group.
    """
    check_importance(importance, batches=batches, loss=loss)
    sizes = partial(_per_unit, groups, size_model or parameter_size(model, groups))
    if not isinstance(importance, str):
        return checked_scores(importance(model, groups), groups, "the importance function")
    if importance == "magnitude":
        scores = _squares(model, groups) / sizes()
    elif importance == "random":
        scores = np.random.default_rng(seed).random(sum(group.units for group in groups))
    else:
        assert batches is not None
        again = as_batches(batches)
        with evaluating(model), plain_attention():
            opened = with_open_attention(model)
            if importance == "activation":
                run = partial(run_on, opened, loss=loss, forward_fn=forward_fn)
                scores = contributions(opened, groups, again, run)
            else:
                power = 1 if importance == "taylor" else 2
                scores = _first_order(opened, groups, again, loss, power) / (1 if power == 1 else sizes())
    return checked_scores(scores, groups, importance)


def check_importance(importance: Importance, *, batches: object, loss: object) -> None:
    """Check that an importance exists and has what it needs, before anything is computed.

    Raises:
        ConfigError: It does not, or has not.
    """
    if not isinstance(importance, str):
        if not callable(importance):
            expected = f"one of {', '.join(IMPORTANCES)}, or a function of model and groups"
            raise ConfigError("importance has the wrong type", got=repr(importance), expected=expected)
        return
    if importance not in IMPORTANCES:
        raise ConfigError("no such importance", where=importance, hint=nearest(importance, IMPORTANCES))
    if loss is not None and not callable(loss):
        raise ConfigError("loss is no function", got=repr(loss), expected="loss(model, batch) that returns a scalar")
    if importance in BATCH_BASED and batches is None:
        hint = "pass a few calibration batches: batches=[...]"
        raise ConfigError("the importance needs batches", where=importance, got="none", hint=hint)
    if importance in LOSS_BASED and loss is None:
        expected = "loss=f, where f(model, batch) returns a scalar"
        raise ConfigError("the importance needs a loss", where=importance, got="none", expected=expected)


def _squares(model: nn.Module, groups: Sequence[PruneGroup]) -> np.ndarray:
    """Sum of squares of the parameters that go with each unit: (N,)."""
    squares = {name: p.detach().double().square() for name, p in model.named_parameters()}
    found = [
        torch.stack([of_weight(place, squares[place.tensor]) for place in group.places if place.tensor in squares])
        for group in groups
    ]
    return np.concatenate([rows.sum(0).cpu().numpy() for rows in found])


def _first_order(
    model: nn.Module, groups: Sequence[PruneGroup], batches: Iterable[Any], loss: Forward | None, power: int
) -> np.ndarray:
    """Sums over examples of |gate gradient|^power, as means over batches: (N,)."""
    total, moved, level, count = np.zeros(sum(group.units for group in groups)), 0.0, 0.0, 0
    for batch in batches:
        values: list[Tensor] = []

        def run(batch: Any = batch, values: list[Tensor] = values) -> Any:
            values.append(run_on(model, batch, loss=loss))
            return values[0]

        gradients = gate_gradients(model, groups, run)
        total += np.concatenate([g.abs().pow(power).sum(0).numpy() for g in gradients])
        moved += sum(float(g.abs().sum()) for g in gradients)
        level, count = level + abs(float(values[0].detach())), count + 1
    # A loss of nothing but rounding has a gradient of the same.
    if moved <= _NO_GRADIENT * level or (moved < _NO_GRADIENT * count and level < 0.1 * _NO_GRADIENT * count):
        hint = "a copy of its teacher has none: use activation or magnitude, or a loss on labels"
        raise DataError("the loss has no gradient on the calibration batches", got=f"{level / count:.3g}", hint=hint)
    return total / count


def _per_unit(groups: Sequence[PruneGroup], size_model: SizeModel) -> np.ndarray:
    """What leaves with each unit: (N,)."""
    sizes = np.array(unit_sizes(size_model), dtype=np.float64)
    return np.maximum(sizes, 1).repeat([group.units for group in groups])


def checked_scores(scores: Any, groups: Sequence[PruneGroup], what: str) -> np.ndarray:
    """Importances of all units, from N numbers or {group name: its units' numbers}.

    Args:
        scores: The numbers.
        groups: The groups whose units they are of.
        what: Who gives them, for error messages.

    Returns:
        (N,) float64, finite.

    Raises:
        ConfigError: They are not one finite number for each unit.
    """
    if isinstance(scores, Mapping):
        names = {group.name for group in groups}
        if odd := sorted(names ^ {*scores}, key=str):
            missing = odd[0] in names
            hint = None if missing else nearest(str(odd[0]), names)
            got = "none" if missing else "no such group"
            raise ConfigError(f"{what} gives other groups than there are", where=odd[0], got=got, hint=hint)
        parts = {group.name: (_numbers(scores[group.name], what), group.units) for group in groups}
        for name, (part, units) in parts.items():
            if part.shape != (units,):
                raise ConfigError(f"{what} gives the wrong number", where=name, got=part.shape, expected=f"({units},)")
        scores = np.concatenate([part for part, _ in parts.values()])
    found = _numbers(scores, what)
    units = sum(group.units for group in groups)
    if found.shape != (units,):
        expected = f"({units},): one for each unit of all groups"
        raise ConfigError(f"{what} gives the wrong number of importances", got=found.shape, expected=expected)
    for name, part in split_by_group(found, groups).items():
        if not np.isfinite(part).all():
            bad = part[~np.isfinite(part)]
            got = f"{'NaN' if np.isnan(bad).any() else 'infinity'} for {len(bad)} of {len(part)} units"
            raise ConfigError(f"{what} gives importances that are not finite", where=name, got=got)
    return found


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        values = values.detach().cpu().double() if isinstance(values, Tensor) else values
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        expected = "numbers, one for each unit"
        raise ConfigError(f"{what} gives no numbers", got=type(values).__name__, expected=expected) from error
