"""Folders of programs of torch.export: those of ONNX folders, for `torch.export.load`."""

import warnings
from pathlib import Path

import torch

from l0prune_speech.deploy.networks.clips import batches
from l0prune_speech.deploy.networks.opened import compare_programs, write_settings
from l0prune_speech.deploy.networks.programs import exported, programs
from l0prune_speech.deploy.networks.registry import NetworkForm, register_form
from l0prune_speech.families import SpeechNetwork


def _write(network: SpeechNetwork, folder: Path) -> tuple[str, ...]:
    (inputs, _, _), *_ = batches(network)
    made = programs(network, inputs)
    for program in made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(exported(program), folder / f"{program.name}.pt2")
    write_settings(network, folder, made)
    return (", ".join(f"{program.name}.pt2" for program in made),)


register_form(
    NetworkForm(
        name="torch.export",
        holds="a folder of torch.export programs: model.pt2, or encoder and decoder with cache; any batch",
        write=_write,
        compare=compare_programs,
        opened_by="torch.export",
    )
)
