"""Bytes that the weights take on disk, as a metric: as they are, in another dtype, or quantised with their scales."""

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
        matrices: In which matrices, kernels of convolutions and other floating-point parameters of two dimensions or
            more are saved instead, each with one scale for every index of its first dimension, as
            `torch.ao.quantization` does by channels; None where nothing is quantised.
        scales: In which scales are saved.
    """

    noun = "bytes on disk"
    units = BYTES

    def __init__(
        self,
        dtype: torch.dtype | None = None,
        *,
        matrices: torch.dtype | None = None,
        scales: torch.dtype = torch.float32,
    ) -> None:
        self.dtype, self.matrices, self.scales = dtype, matrices, scales
        self.name = "-".join(["disk", *(_short(one) for one in (matrices, dtype) if one is not None)])

    def size(self, subject: Subject) -> SizeModel:
        """In bytes, shown in MB."""
        tensors = saved_tensors(subject.model)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        bytes_of = {name: self._bytes(tensor) for name, tensor in tensors.items()}
        terms = tensor_monomials(shapes, subject.groups, factors_of=bytes_of)
        if scaled := {name: shape[:1] for name, shape in shapes.items() if self._is_quantised(tensors[name])}:
            # A scale stays as long as its row, whatever becomes of the columns.
            each = dict.fromkeys(scaled, _bytes_of(self.scales))
            terms.update(tensor_monomials(scaled, subject.groups, factors_of=each))
            shapes |= {f"{name}_scale": shape for name, shape in scaled.items()}
            bytes_of |= {f"{name}_scale": each[name] for name in scaled}
        terms[()] += header_bytes(shapes, bytes_of)
        form = self.name.removeprefix("disk").removeprefix("-")
        counts = f"MB on disk in {form}" if form else "MB on disk"
        return SizeModel(subject.groups, terms, counts=counts, unit=MB)

    def _bytes(self, tensor: Tensor) -> int:
        """Of an element."""
        if self._is_quantised(tensor):
            assert self.matrices is not None
            return _bytes_of(self.matrices)
        whole = self.dtype is None or not tensor.is_floating_point()
        return tensor.element_size() if whole else _bytes_of(self.dtype)

    def _is_quantised(self, tensor: Tensor) -> bool:
        matrix = isinstance(tensor, nn.Parameter) and tensor.ndim > 1 and tensor.is_floating_point()
        return self.matrices is not None and matrix


def _bytes_of(dtype: torch.dtype | None) -> int:
    return torch.empty((), dtype=dtype).element_size()


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the state dict, each by its first name."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def header_bytes(shapes: Mapping[str, tuple[int, ...]], bytes_of: Mapping[str, int]) -> int:
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
register_metric(Disk(matrices=torch.int8))
