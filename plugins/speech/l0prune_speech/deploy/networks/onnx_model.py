"""ONNX folders: `model.onnx`, or encoder and decoder with cache, by the community's names; settings beside them."""

import warnings
from pathlib import Path
from typing import Any

import torch

from l0prune.support import STAMP, stamp
from l0prune_speech.deploy.networks.clips import batches
from l0prune_speech.deploy.networks.opened import compare_programs, write_settings
from l0prune_speech.deploy.networks.programs import exported, programs
from l0prune_speech.deploy.networks.registry import NetworkForm, register_form
from l0prune_speech.families import SpeechNetwork
from l0prune_speech.formats import LARGEST_ONNX, OPSET, check_onnx


def _refuses(network: SpeechNetwork) -> str | None:
    size = 4 * network.parameters
    if size < LARGEST_ONNX:
        return None
    return f"{size / 1e9:.2f} GB of weights, where an ONNX file ends at {LARGEST_ONNX / 1e9:.2f} GB"


def _write(network: SpeechNetwork, folder: Path) -> tuple[str, ...]:
    (inputs, _, _), *_ = batches(network)
    made = programs(network, inputs)
    for program in made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written: Any = torch.onnx.export(
                exported(program),
                input_names=list(program.inputs),
                output_names=list(program.outputs),
                opset_version=OPSET,
                verbose=False,
            )
        # Room for the checksum of the file, which follows when it is whole.
        written.model.metadata_props[STAMP] = "0" * 64
        path = folder / f"{program.name}.onnx"
        written.save(str(path), external_data=False)
        stamp(path)
    write_settings(network, folder, made)
    return (f"{', '.join(f'{program.name}.onnx' for program in made)}, opset {OPSET}",)


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
