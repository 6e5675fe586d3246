"""ONNX folders: `model.onnx`, or encoder and decoder with cache, by the community's names; settings beside them."""

from pathlib import Path

from l0prune.formats import OPSET, check_onnx, too_large_for_onnx, write_onnx
from l0prune_speech.deploy.networks.clips import batches
from l0prune_speech.deploy.networks.opened import compare_programs, write_settings
from l0prune_speech.deploy.networks.programs import exported, programs
from l0prune_speech.deploy.networks.registry import NetworkForm, register_form
from l0prune_speech.families import SpeechNetwork


def refuses_onnx(network: SpeechNetwork) -> str | None:
    """Why ONNX files cannot hold a network, if they cannot."""
    return too_large_for_onnx(4 * network.parameters)


def _write(network: SpeechNetwork, folder: Path) -> tuple[str, ...]:
    return write_programs(network, folder, OPSET)


def write_programs(network: SpeechNetwork, folder: Path, opset: int) -> tuple[str, ...]:
    """Write each program of a network as an ONNX file, and the settings beside them.

    Args:
        network: What to write.
        folder: An empty one.
        opset: The version of ONNX's operators.
    """
    (inputs, _, _), *_ = batches(network)
    made, notes = programs(network, inputs), list[str]()
    for program in made:
        path = folder / f"{program.name}.onnx"
        notes = write_onnx(exported(program), (), path, inputs=program.inputs, outputs=program.outputs, opset=opset)
    write_settings(network, folder, made)
    return (", ".join([*(f"{program.name}.onnx" for program in made), *notes]),)


register_form(
    NetworkForm(
        name="onnx",
        holds="a folder of ONNX files: model.onnx, or encoder and decoder with cache; any batch, float32",
        write=_write,
        compare=compare_programs,
        opened_by="onnxruntime",
        tolerance=1e-4,
        refuses=refuses_onnx,
        needs=check_onnx,
    )
)
