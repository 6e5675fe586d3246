"""Weights that a network can compute with: finite, and no integers in the place of fractions."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from l0prune.errors import L0PruneError, RunError

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict([*model.named_parameters(), *model.named_buffers()])


def load_weights(model: nn.Module, file: str | PathLike[str]) -> None:
    """Read a safetensors file into a network of its shapes, as `safetensors.torch.load_model` does.

    Classes whose state has versions are told their own: files hold tensors alone, and `_load_from_state_dict` of a
    class may refuse a state without one.

    Raises:
        OSError, safetensors.SafetensorError: The file cannot be read.
        RuntimeError: The file has other tensors.
    """
    load_model(_Versioned(model), file)  # type: ignore[arg-type]


class _Versioned:
    """What `load_model` asks of a network."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        return self._model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True) -> Any:
        versioned = OrderedDict(state)
        versioned._metadata = getattr(self._model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
        return self._model.load_state_dict(versioned, strict=strict)


def check_kinds(
    tensors: Mapping[str, Tensor], like: Mapping[str, Tensor], where: object, error: type[L0PruneError] = RunError
) -> None:
    """Check that tensors hold numbers of the kind that a network has there, not quantised ones, say.

    Args:
        tensors: What was read, by name.
        like: The network's own; names that are not there are passed over.
        where: The file, for messages.
        error: What to raise.

    Raises:
        L0PruneError: Names the first that does not.
    """
    for name, tensor in tensors.items():
        if name not in like:
            continue
        floats = like[name].dtype.is_floating_point
        if tensor.is_quantized or tensor.dtype not in (_FLOATS if floats else (like[name].dtype,)):
            got = str(tensor.dtype).removeprefix("torch.")
            expected = "float32, float64, float16 or bfloat16" if floats else str(like[name].dtype)
            hint = "weights that were quantised must be brought back to numbers first"
            raise error("weights of another kind", where=f"{where}: {name}", got=got, expected=expected, hint=hint)


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: object, error: type[L0PruneError] = RunError) -> None:
    """Check that no tensor holds nan or inf.

    Args:
        tensors: Names and tensors.
        where: The file, for messages.
        error: What to raise.

    Raises:
        L0PruneError: Names the first that does.
    """
    for name, tensor in tensors:
        if not _finite(tensor):
            bad = int((~torch.isfinite(tensor)).sum())
            got = f"{bad:,} of {tensor.numel():,} values are nan or inf"
            raise error("weights are not finite", where=f"{where}: {name}", got=got)


def _finite(tensor: Tensor) -> bool:
    """By the extremes, which nan spreads to: in one pass, and without a tensor of truth values."""
    if tensor.dtype not in _FLOATS or not tensor.numel() or tensor.is_meta:
        return True
    least, most = torch.aminmax(tensor.detach())
    return bool(torch.isfinite(least) and torch.isfinite(most))
