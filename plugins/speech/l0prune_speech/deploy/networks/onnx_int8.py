"""ONNX folders in int8: each file quantised. What hears is calibrated on audio; decoders find scales as they run."""

import tempfile
from pathlib import Path

import numpy as np

from l0prune.formats import FUSED_OPSET, INT8_NOISE, check_onnx
from l0prune.proof import relative_noise
from l0prune.quantisation import Feeds, dynamic_int8, int8_words, static_int8
from l0prune_speech.deploy.calibration import Calibration, find_calibration
from l0prune_speech.deploy.networks.clips import batches, ends, largest_difference
from l0prune_speech.deploy.networks.onnx_model import refuses_onnx, write_programs
from l0prune_speech.deploy.networks.opened import open_export, write_settings
from l0prune_speech.deploy.networks.programs import ENCODER, WHOLE, programs
from l0prune_speech.deploy.networks.registry import Lossy, NetworkForm, register_form
from l0prune_speech.families import SpeechNetwork

_HEARING = (WHOLE, ENCODER)


def _static(network: SpeechNetwork, folder: Path, calibration: Calibration) -> tuple[str, ...]:
    return _write(network, folder, calibration)


def _dynamic(network: SpeechNetwork, folder: Path, _calibration: Calibration) -> tuple[str, ...]:
    return _write(network, folder, None)


def _write(network: SpeechNetwork, folder: Path, calibration: Calibration | None) -> tuple[str, ...]:
    (inputs, _, _), *_ = batches(network)
    made, notes = programs(network, inputs), list[str]()
    with tempfile.TemporaryDirectory() as place:
        notes += write_programs(network, Path(place), FUSED_OPSET)
        for program in made:
            plain, file = Path(place) / f"{program.name}.onnx", folder / f"{program.name}.onnx"
            if calibration is not None and program.name in _HEARING:
                said = static_int8(plain, file, _feeds(network, calibration, program.inputs))
            else:
                said = dynamic_int8(plain, file)
            notes.append(f"{program.name}: {'; '.join(said)}")
    write_settings(network, folder, made)
    words = int8_words()
    return (*notes, *([words] if words else []))


def _feeds(network: SpeechNetwork, calibration: Calibration, names: tuple[str, ...]) -> list[Feeds]:
    """What the program is given for each clip."""
    return [{name: np.asarray(inputs[name]) for name in names} for inputs, _, _ in batches(network, calibration.clips)]


def _noise(network: SpeechNetwork, folder: Path, calibration: Calibration) -> float:
    """Of the last states, and of the logits."""
    opened = open_export(folder)
    return largest_difference(
        network,
        lambda *given: opened.hear(opened.model, *given),
        ends,
        clips=calibration.held_out,
        distance=relative_noise,
    )


def _form(name: str, holds: str, write: Lossy) -> NetworkForm:
    return NetworkForm(
        name=name,
        holds=holds,
        write=lambda network, folder: write.write(network, folder, find_calibration("", ())),
        compare=lambda network, folder: write.noise(network, folder, find_calibration("", ())),
        opened_by="onnxruntime",
        tolerance=INT8_NOISE,
        refuses=refuses_onnx,
        needs=check_onnx,
        lossy=write,
    )


register_form(
    _form(
        "onnx-int8",
        "a folder of ONNX files in int8: what hears has scales from calibration audio, a decoder finds them as it runs",
        Lossy(write=_static, noise=_noise, calibrated=True),
    )
)
register_form(
    _form(
        "onnx-int8-dynamic",
        "a folder of ONNX files whose linear layers compute in int8, without calibration",
        Lossy(write=_dynamic, noise=_noise, calibrated=False),
    )
)
