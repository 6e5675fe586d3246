"""ONNX files in int8, made by onnxruntime's quantiser.

Weights have one scale for each output channel, activations one for each tensor. Files hold standard operators alone:
QuantizeLinear and DequantizeLinear (static), or DynamicQuantizeLinear and MatMulInteger (dynamic).

Legend: O output channels of a convolution.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from l0prune.errors import ConfigError
from l0prune.support import STAMP, stamp

Feeds = Mapping[str, np.ndarray]
"""The inputs of a file by name."""

LINEAR, CONVOLUTIONS = ("MatMul", "Gemm"), ("Conv",)
_MOST_NOISE = 0.1
"""Of the signal (20 dB): with more, convolutions compute in float32."""
_COMPARED = 2
"""Batches by which that is decided."""
_LARGEST = 127
_OURS = "int8."
"""What the names of constants begin with that are put into a file."""


def check_quantiser() -> None:
    """Raise a `ConfigError` where onnx or onnxruntime is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        hint = "pip install 'l0prune[onnx]'"
        raise ConfigError("int8 needs onnx and onnxruntime", got=error, hint=hint) from error


def dynamic_int8(path: Path, out: Path) -> list[str]:
    """Write a file whose linear layers compute in int8, with scales of activations found at each run.

    Convolutions keep int8 weights and compute in float32: onnxruntime has no faster form for them.

    Args:
        path: A file in float32.
        out: The file to make.

    Returns:
        What was done, for the user.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _simplified(path) as (simple, scratch):
        made = scratch / "dynamic.onnx"
        quantize_dynamic(simple, made, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=list(LINEAR))
        kept = _save(made, out)
    return ["linear layers compute in int8, with scales found at each run", *_said_of(kept)]


def static_int8(path: Path, out: Path, calibration: Sequence[Feeds]) -> list[str]:
    """Write a file that computes in int8, with scales of activations found in calibration (QDQ).

    Convolutions compute in int8 if that leaves a signal-to-noise ratio of 20 dB; otherwise they keep int8 weights.

    Args:
        path: A file in float32.
        out: The file to make.
        calibration: Inputs like those that it will meet.

    Returns:
        What was done, for the user.

    Raises:
        ConfigError: There is nothing to calibrate on.
    """
    if not calibration:
        raise ConfigError("nothing to calibrate on", expected="one batch of inputs or more")
    with _simplified(path) as (simple, scratch):
        made = scratch / "static.onnx"
        taken = {value.name for value in _loaded(simple).graph.input}
        # An argument that changes no output is none of the file.
        calibration = [{name: array for name, array in feeds.items() if name in taken} for feeds in calibration]
        heard = [_outputs(simple, feeds) for feeds in calibration[:_COMPARED]]
        has_convolutions = bool(_convolutions(_loaded(simple)))
        said = "linear layers compute in int8, with scales from calibration"
        if has_convolutions:
            _quantise(simple, made, calibration, (*LINEAR, *CONVOLUTIONS))
            noise = max(
                _noise(expected, _outputs(made, feeds))
                for expected, feeds in zip(heard, calibration[:_COMPARED], strict=True)
            )
            if noise <= _MOST_NOISE:
                _save(made, out)
                return ["linear layers and convolutions compute in int8, with scales from calibration"]
            said += (
                f"; with convolutions in int8 too the signal would be {-20 * np.log10(noise):.1f} dB above the noise"
            )
        _quantise(simple, made, calibration, LINEAR)
        return [said, *_said_of(_save(made, out))]


def is_int8(path: Path) -> bool:
    """Whether an ONNX file computes in int8."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    int8 = {"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv"}
    return any(node.op_type in int8 for node in model.graph.node)


def _quantise(path: Path, out: Path, calibration: Sequence[Feeds], kinds: Sequence[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> Any:
            return next(self.left, None)

    quantize_static(
        path,
        out,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
        op_types_to_quantize=list(kinds),
        extra_options={
            # Products of two activations, those of attention, stay in float32.
            "MatMulConstBOnly": True,
            # The sums of linear layers go on in float32: to round them costs accuracy and saves nothing.
            "OpTypesToExcludeOutputQuantization": list(LINEAR),
        },
    )


@contextmanager
def _simplified(path: Path) -> Iterator[tuple[Path, Path]]:
    """The file after onnxruntime's own simplification, and a folder for what is made on the way."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        simple = Path(folder) / "simple.onnx"
        # Symbolic shapes take sympy, and the quantiser needs none.
        quant_pre_process(str(path), str(simple), skip_symbolic_shape=True)
        yield simple, Path(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser tells the root logger what it does."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _loaded(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))


def _convolutions(model: Any) -> list[Any]:
    """Convolutions whose weights are constants in float32."""
    import onnx

    floats = {value.name for value in model.graph.initializer if value.data_type == onnx.TensorProto.FLOAT}
    return [node for node in model.graph.node if node.op_type in CONVOLUTIONS and node.input[1] in floats]


def _save(made: Path, out: Path) -> int:
    """Give the convolutions that compute in float32 int8 weights, and write the file with its SHA-256.

    Returns:
        The number of such convolutions.
    """
    import onnx

    model = _loaded(made)
    count = _store_in_int8(model)
    entries = [entry for entry in model.metadata_props if entry.key == STAMP]
    entry = entries[0] if entries else model.metadata_props.add()
    # Room for the checksum of the file, which follows when it is whole.
    entry.key, entry.value = STAMP, "0" * 64
    onnx.save(model, str(out))
    stamp(out)
    return count


def _store_in_int8(model: Any) -> int:
    """Store the weights of convolutions in int8, with a scale for each of O, before a DequantizeLinear."""
    from onnx import helper, numpy_helper

    graph, made, count = model.graph, dict[str, str](), 0
    constants = {value.name: value for value in graph.initializer}
    for node in _convolutions(model):
        name = node.input[1]
        if name not in made:
            weight = numpy_helper.to_array(constants[name])
            scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / _LARGEST
            scale = np.where(scale > 0, scale, 1).astype(np.float32)
            rounded = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
            parts = {f"{_OURS}{name}": rounded.astype(np.int8), f"{_OURS}{name}.scale": scale}
            graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in parts.items())
            graph.initializer.remove(constants[name])
            made[name] = f"{_OURS}{name}.float"
            restored = helper.make_node("DequantizeLinear", list(parts), [made[name]], name=made[name], axis=0)
            graph.node.insert(0, restored)
        node.input[1] = made[name]
        count += 1
    return count


def _said_of(convolutions: int) -> list[str]:
    if not convolutions:
        return []
    return ["convolutions keep int8 weights and compute in float32"]


def _outputs(path: Path, feeds: Feeds) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, dict(feeds))]


def _noise(expected: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    """The largest share that noise has of a signal, by their root mean squares."""
    largest = 0.0
    for signal, other in zip(expected, got, strict=True):
        if signal.dtype.kind == "f" and signal.size:
            power = float(np.square(signal, dtype=np.float64).mean())
            noise = float(np.square(signal.astype(np.float64) - other).mean())
            largest = max(largest, (noise / max(power, 1e-30)) ** 0.5)
    return largest
