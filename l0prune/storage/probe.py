"""What a network gives for a small input, kept beside its weights: elsewhere it must give the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from l0prune.errors import RunError
from l0prune.proof import relative_difference, run_seeded
from l0prune.support import copied, evaluating, output_tensors, write_atomic

PROBE = "probe.safetensors"
PROBE_TOLERANCE = 1e-4
"""Largest relative difference, in float32 on a CPU. Another number of threads, processor or version of torch sums in
another order, which makes less than 1e-6 in the encoders that were tried."""
_MOST_BYTES = 2**24
"""Of inputs: what is larger is not kept."""
_MOST_VALUES = 2**12
"""Of each output, taken at equal distances."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Inputs and outputs of a network."""

    inputs: tuple[Tensor, ...]
    """Positional arguments."""
    outputs: tuple[Tensor, ...]
    """At most `_MOST_VALUES` of the values of each output with fractions."""


def make_probe(module: nn.Module, inputs: Sequence[Tensor]) -> Probe | None:
    """Run a network on inputs, in evaluation mode on the CPU; None where that cannot be kept.

    Args:
        module: The network, on any device.
        inputs: Positional arguments.
    """
    given = tuple(tensor.detach().cpu().clone().contiguous() for tensor in inputs)
    if not given or sum(tensor.numel() * tensor.element_size() for tensor in given) > _MOST_BYTES:
        return None
    try:
        outputs = _outputs(copied(module).cpu(), given)
    except Exception:
        # Some networks run on a GPU alone, and what is to be saved must not be lost for that.
        return None
    kept = bool(outputs) and all(tensor.isfinite().all() for tensor in outputs)
    return Probe(inputs=given, outputs=outputs) if kept else None


def probe_difference(probe: Probe, module: nn.Module) -> float:
    """The largest relative difference between a network's outputs, on the CPU, and those that were kept."""
    return relative_difference(list(probe.outputs), list(_outputs(module, probe.inputs)))


@torch.no_grad()
def _outputs(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    with evaluating(module):
        found = output_tensors(run_seeded(lambda network: network(*(tensor.clone() for tensor in inputs)), module))
    values = [tensor.flatten().float() for tensor in found if tensor.is_floating_point()]
    return tuple(tensor[:: -(-tensor.numel() // _MOST_VALUES) or 1].clone() for tensor in values)


def write_probe(probe: Probe, path: Path) -> None:
    """Write a probe in one step.

    Raises:
        RunError: The disk is full or not writable.
    """
    tensors = {f"input.{number}": tensor for number, tensor in enumerate(probe.inputs)}
    tensors |= {f"output.{number}": tensor for number, tensor in enumerate(probe.outputs)}
    write_atomic(path, lambda temporary: save_file(tensors, temporary))


def read_probe(path: Path) -> Probe:
    """Read what `write_probe` wrote.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        tensors = load_file(path)
        counts = [sum(name.startswith(f"{kind}.") for name in tensors) for kind in ("input", "output")]
        inputs, outputs = (
            tuple(tensors[f"{kind}.{number}"] for number in range(count))
            for kind, count in zip(("input", "output"), counts, strict=True)
        )
    except (OSError, safetensors.SafetensorError, LookupError) as error:
        raise RunError("damaged or missing probe", where=path, got=error) from error
    return Probe(inputs=inputs, outputs=outputs)
