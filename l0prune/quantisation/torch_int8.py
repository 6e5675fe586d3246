"""Programs of torch.export in int8, by torchao's PT2E: weights in int8, linear layers that compute in int8."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from l0prune.errors import ConfigError

Call = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Arguments by position and by name."""

_LINEAR = (torch.ops.aten.linear.default,)
_CONVOLUTIONS = tuple(
    overload
    for packet in (torch.ops.aten.conv1d, torch.ops.aten.conv2d, torch.ops.aten.conv3d)
    for overload in (packet.default, packet.padding)
)


def check_torchao() -> None:
    """Raise a `ConfigError` where torchao, or its PT2E, is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        hint = "pip install 'l0prune[torchao]'; onnx-int8 needs onnxruntime alone"
        raise ConfigError("int8 programs of torch.export need torchao", got=error, hint=hint) from error


def int8_program(
    module: nn.Module, example: Call, calibration: Sequence[Call], dynamic_shapes: Any = None
) -> torch.export.ExportedProgram:
    """A program whose weights are stored in int8, and whose linear layers take activations in int8.

    Weights have a scale for each output channel, activations one for each tensor, found in calibration. Convolutions
    compute in float32. Compiled by inductor the program multiplies in int8; as it is, it rounds and multiplies in
    float32.

    Args:
        module: In evaluation mode on the CPU.
        example: Arguments to export with.
        calibration: Arguments like those that it will meet.
        dynamic_shapes: As torch.export takes them.

    Raises:
        ConfigError: torchao is missing.
    """
    check_torchao()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # pyright: ignore[reportMissingImports]

        args, kwargs = example
        program = torch.export.export(module, args, dict(kwargs), dynamic_shapes=dynamic_shapes)
        prepared = prepare_pt2e(program.module(), _quantiser())
        for given, named in calibration:
            prepared(*given, **named)
        converted = convert_pt2e(prepared)
        _forget_unused(converted)
        return torch.export.export(converted, args, dict(kwargs), dynamic_shapes=dynamic_shapes)


def _quantiser() -> Any:
    from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver  # pyright: ignore[reportMissingImports]
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer  # pyright: ignore[reportMissingImports]

    activations = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=HistogramObserver.with_args(eps=2**-12),
    )
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-12),
    )

    class LinearAndWeights(Quantizer):
        """Inputs and weights of linear layers, weights of convolutions."""

        def annotate(self, model: Any) -> Any:
            for node in model.graph.nodes:
                if node.target not in (*_LINEAR, *_CONVOLUTIONS) or node.args[1].op != "get_attr":
                    continue
                specs: dict[Any, Any] = {node.args[1]: weights}
                if node.target in _LINEAR:
                    specs[node.args[0]] = activations
                node.meta["quantization_annotation"] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
            return model

        def validate(self, model: Any) -> None:
            pass

    return LinearAndWeights()


def _forget_unused(model: Any) -> None:
    """Take the weights in float32 out of a program whose graph reads their int8 form."""
    read = {node.target for node in model.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in [*model.named_parameters(), *model.named_buffers()] if name not in read]:
        path, _, last = name.rpartition(".")
        delattr(model.get_submodule(path), last)
