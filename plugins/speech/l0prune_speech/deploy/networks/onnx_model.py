"""ONNX folders: `model.onnx`, or encoder and decoder with cache, by the community's names; settings beside them."""

from pathlib import Path

from l0prune.formats import check_onnx, too_large_for_onnx, write_onnx
from l0prune_speech.deploy.networks.clips import batches
from l0prune_speech.deploy.networks.opened import compare_programs, write_settings
from l0prune_speech.deploy.networks.programs import exported, programs
from l0prune_speech.deploy.networks.registry import NetworkForm, register_form
from l0prune_speech.families import SpeechNetwork


def _refuses(network: SpeechNetwork) -> str | None:
    return too_large_for_onnx(4 * network.parameters)


def _write(network: SpeechNetwork, folder: Path) -> tuple[str, ...]:
    (inputs, _, _), *_ = batches(network)
    made, notes = programs(network, inputs), list[str]()
    for program in made:
        path = folder / f"{program.name}.onnx"
        notes = write_onnx(exported(program), (), path, inputs=program.inputs, outputs=program.outputs)
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
        refuses=_refuses,
        needs=check_onnx,
    )
)
