"""Calibration: a network run on a caller's batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from l0prune.errors import DataError, L0PruneError
from l0prune.support import tree_leaves

Forward = Callable[[nn.Module, Any], Any]
"""Runs a model on one batch."""


def as_batches(batches: Iterable[Any]) -> Iterable[Any]:
    """Batches that can be gone through several times; those of an iterator are kept in memory.

    Raises:
        DataError: They cannot be gone through, or there are none.
    """
    expected = "a list or a loader of batches"
    if isinstance(batches, Tensor | str | bytes | Mapping) or not isinstance(batches, Iterable):
        got = f"one {type(batches).__name__}"
        hint = "one batch alone stands in a list: batches=[batch]"
        raise DataError("calibration batches have the wrong type", got=got, expected=expected, hint=hint)
    again = list(batches) if isinstance(batches, Iterator) else batches
    if next(iter(again), None) is None:
        raise DataError("there are no calibration batches", got=f"an empty {type(batches).__name__}", expected=expected)
    return again


def run_on(model: nn.Module, batch: Any, *, loss: Forward | None = None, forward_fn: Forward | None = None) -> Any:
    """Run a model on one calibration batch.

    Args:
        model: The model.
        batch: One batch. Without `loss` and `forward_fn` the model gets it as it gets example inputs: a mapping by its
            keywords, a tuple or list by its positions, anything else alone.
        loss: Called as `loss(model, batch)`.
        forward_fn: Called as `forward_fn(model, batch)` where there is no loss.

    Returns:
        The loss, or else the model's outputs.

    Raises:
        DataError: The forward pass fails on the batch.
    """
    try:
        if loss is not None:
            return loss(model, batch)
        if forward_fn is not None:
            return forward_fn(model, batch)
        if isinstance(batch, Mapping):
            return model(**batch)
        return model(*batch) if isinstance(batch, tuple | list) else model(batch)
    except L0PruneError:
        raise
    except Exception as error:
        got = " ".join(str(error).split())[:300] or type(error).__name__
        hint = None
        if loss is None and forward_fn is None:
            hint = "a batch is given to the model as example inputs are; pass `loss` or `forward_fn` to take it apart"
        raise DataError(
            "a calibration batch does not fit the model", where=_shapes(batch), got=got, hint=hint
        ) from error


def _shapes(batch: Any) -> str:
    shapes = [str(tuple(leaf.shape)) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
    return f"tensors of shapes {', '.join(shapes[:4])}" if shapes else f"a {type(batch).__name__}"
