"""Bytes that the weights take on disk, as a metric."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from l0prune.size.metric import Metric, Subject, register_metric
from l0prune.size.parameters import tensor_monomials
from l0prune.size.polynomial import SizeModel

MB = 10**6
BYTES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
"""Units of what is counted in bytes."""


class Disk(Metric):
    """Bytes of a safetensors file with the parameters and buffers of the state dict, each shared one once.

    The bytes of the tensors are exact for any choice of units. Those of the file's header are counted as the dense
    network's: about a hundred for each tensor.

    Args:
        dtype: In which floating-point tensors are saved; None for their own.
    """

    noun = "bytes on disk"
    units = BYTES

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.name = "disk" if dtype is None else f"disk-{_short(dtype)}"

    def size(self, subject: Subject) -> SizeModel:
        """In bytes, shown in MB."""
        tensors = _saved(subject.model)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        bytes_of = {name: self._bytes(tensor) for name, tensor in tensors.items()}
        terms = tensor_monomials(shapes, subject.groups, factors_of=bytes_of)
        terms[()] += _header(shapes, bytes_of)
        counts = "MB on disk" if self.dtype is None else f"MB on disk in {_short(self.dtype)}"
        return SizeModel(subject.groups, terms, counts=counts, unit=MB)

    def _bytes(self, tensor: Tensor) -> int:
        """Of an element."""
        whole = self.dtype is None or not tensor.is_floating_point()
        return tensor.element_size() if whole else torch.empty((), dtype=self.dtype).element_size()


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _saved(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the state dict, each by its first name."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def _header(shapes: Mapping[str, tuple[int, ...]], bytes_of: Mapping[str, int]) -> int:
    """Bytes before the first tensor: the length in eight bytes, and JSON that is padded to a multiple of eight.

    Source: https://github.com/huggingface/safetensors#format
    """
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + bytes_of[name] * torch.Size(shape).numel()
        # Names of dtypes have up to four letters.
        entries[name] = {"dtype": "BF16", "shape": [*shape], "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return 8 + -(-len(text) // 8) * 8


register_metric(Disk())
register_metric(Disk(torch.float16))
