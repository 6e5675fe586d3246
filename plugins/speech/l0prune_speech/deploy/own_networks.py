"""Networks with a class of their own as their users know them: written, opened again, compared, put in place."""

from collections.abc import Sequence
from pathlib import Path

from l0prune import ConfigError, Export, ProofError, assembled, read_report
from l0prune.formats import FLOAT32_BYTES, size_on_disk
from l0prune.proof import decibels
from l0prune.support import write_sums
from l0prune_speech.deploy.calibration import find_calibration
from l0prune_speech.deploy.networks import form_named, forms
from l0prune_speech.families import open_network


def export_own(source: str, to: str, out: Path, calibration: Sequence[str] | None = None) -> Export:
    """Write a network of a class of its own.

    Args:
        source: A run directory, or a checkpoint.
        to: The name of a form.
        out: The folder to make.
        calibration: Audio on which scales are found; by default the run's, or the embedded clips.

    Raises:
        ConfigError: There is no such form of it, it takes no calibration, or a package is missing.
        DataError: There is not enough audio to calibrate on.
        ProofError: What was written does not behave as the network does; nothing is left of it.
    """
    form = form_named(to)
    if calibration is not None and not (form.lossy and form.lossy.calibrated):
        names = ", ".join(name for name, each in forms().items() if each.lossy and each.lossy.calibrated)
        raise ConfigError("the form takes no calibration", where=to, expected=f"one of {names}")
    form.needs()
    network = open_network(source)
    if refusal := form.refuses(network):
        others = ", ".join(name for name, each in forms().items() if not each.refuses(network))
        raise ConfigError(f"{to} cannot hold this network", where=source, got=refusal, hint=f"these can: {others}")
    audio = find_calibration(source, calibration or ()) if form.lossy else None
    with assembled(out) as place:
        place.mkdir()
        if form.lossy and audio:
            notes = form.lossy.write(network, place, audio)
            difference = form.lossy.noise(network, place, audio)
        else:
            notes = form.write(network, place)
            difference = form.compare(network, place)
        if not difference <= form.tolerance:
            got, expected = f"a relative difference of {difference:.1e}", f"at most {form.tolerance}"
            if form.lossy:
                got = f"a signal-to-noise ratio of {decibels(difference):.1f} dB"
                expected = f"{decibels(form.tolerance):.0f} dB or more"
            raise ProofError(
                f"the {to} export does not behave as the network", where=source, got=got, expected=expected
            )
        write_sums(place)
        size = size_on_disk(place)
    if audio and form.lossy and form.lossy.calibrated:
        notes = (*notes, f"calibrated on {audio.seconds:.0f} s of audio from {audio.source}")
    before = (read_report(source) or {}).get("params_before")
    return Export(
        source=source,
        format=to,
        path=str(out),
        parameters=network.parameters,
        max_relative_difference=difference,
        signal_to_noise_db=decibels(difference) if form.lossy else None,
        file_bytes=size,
        float32_bytes=FLOAT32_BYTES * network.parameters,
        dense_bytes=FLOAT32_BYTES * before if isinstance(before, int) else None,
        notes=(*network.notes, *notes, f"{size / 1e6:.1f} MB in all", f"opened again by {form.opened_by}"),
    )
