"""ONNX files."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import ConfigError
from l0prune.formats.example import Example
from l0prune.formats.program import Program, dynamic_shapes, input_names, output_names
from l0prune.formats.registry import ModuleFormat, Opened, register_module_format
from l0prune.support import STAMP, named_weights, stamp

OPSET = 18
"""The first with GroupNorm's present form, and what the exporter writes without conversion."""
LARGEST_ONNX = 2**31 - 1
"""Bytes of a file in protobuf's format, which ONNX is."""
FUSED_OPSET = 20
"""The first with GELU as one operator, which onnxruntime computes faster than its five parts."""
GRAPH_BYTES = 2**24
"""Room for the graph beside its weights: it takes 0.1 MB a layer."""


def write_onnx(
    module: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    metadata: Mapping[str, str] = {},
    opset: int = OPSET,
) -> list[str]:
    """Write an ONNX file that carries its SHA-256.

    Args:
        module: In evaluation mode on the CPU, or exported already; it gives a tensor or a tuple of tensors.
        args: Positional arguments; none of an exported one.
        path: The file.
        inputs: Names of the tensors among the arguments.
        outputs: Names of the tensors that it gives.
        kwargs: Keyword arguments.
        dynamic_shapes: As torch.export takes them.
        metadata: Further entries of the file.
        opset: The version of ONNX's operators.

    Returns:
        The version of ONNX's operators, for the user.

    Raises:
        ConfigError: The packages that write and check it are missing.
    """
    check_onnx()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            args,
            kwargs=kwargs,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    # Room for the checksum of the file, which follows when it is whole.
    program.model.metadata_props[STAMP] = "0" * 64
    program.save(str(path), external_data=False)
    stamp(path)
    return [f"opset {opset}"]


def too_large_for_onnx(size: int) -> str | None:
    """Why an ONNX file cannot hold weights of `size` bytes, if it cannot."""
    if size <= LARGEST_ONNX - GRAPH_BYTES:
        return None
    return f"{size / 1e9:.2f} GB of weights, where an ONNX file ends at {LARGEST_ONNX / 1e9:.2f} GB"


def check_onnx() -> None:
    """Raise a `ConfigError` where onnx, onnxscript or onnxruntime is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        hint = "pip install 'l0prune[onnx]'"
        raise ConfigError("ONNX export needs onnx, onnxscript and onnxruntime", got=error, hint=hint) from error


def refuses_onnx(module: nn.Module) -> str | None:
    """Why an ONNX file cannot hold a network, if it cannot."""
    return too_large_for_onnx(sum(tensor.numel() * tensor.element_size() for tensor in named_weights(module).values()))


def write_module(module: Any, example: Example, path: Path, opset: int = OPSET) -> list[str]:
    """Write a network as an ONNX file.

    Args:
        module: In evaluation mode on the CPU.
        example: Its arguments.
        path: The file.
        opset: The version of ONNX's operators.
    """
    wide = example.widened()
    return write_onnx(
        Program(module, wide),
        wide.args,
        path,
        inputs=input_names(wide),
        outputs=output_names(module, wide),
        kwargs=wide.kwargs,
        dynamic_shapes=dynamic_shapes(wide),
        opset=opset,
    )


def open_module(path: Path, _module: Any) -> Opened:
    """What runs a file of `write_module` in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}

    def run(example: Example) -> list[Tensor]:
        feeds = feeds_of(example)
        # An argument that changes no output is none of the file.
        return [torch.from_numpy(a) for a in session.run(None, {n: a for n, a in feeds.items() if n in taken})]

    return run


def feeds_of(example: Example) -> dict[str, Any]:
    """The tensors of an example by the names of a file's inputs."""
    return dict(zip(input_names(example), (tensor.numpy() for tensor in example.tensors), strict=True))


register_module_format(
    ModuleFormat(
        name="onnx",
        holds="an ONNX file with its SHA-256; at most 2 GB",
        suffix=".onnx",
        free_batch=True,
        write=write_module,
        open=open_module,
        opened_by="onnxruntime",
        tolerance=1e-4,
        refuses=refuses_onnx,
        needs=check_onnx,
    )
)
