"""Networks into other stacks' formats: written, opened again as their users would, compared, then put in place.

Legend: B batch, T frames, D residual width, L transformer layers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from l0prune import ConfigError, Export, ProofError, assembled, read_report, relative_difference
from l0prune.formats import FLOAT32_BYTES, size_on_disk
from l0prune.proof import decibels, relative_noise
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.deploy.calibration import find_calibration
from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.formats import (
    FORMATS,
    Format,
    format_named,
    from_encoder,
    load_teacher,
    model_card,
    to_encoder,
)

_CLIPS = ((2.0, 1.3), (0.05,), (0.7, 3.07, 1.9))
"""Seconds of each clip of the batches on which an export is compared; frames are 20 ms."""


def export_network(source: str, to: str, out: Path, calibration: Sequence[str] | None = None) -> Export:
    """Write a network in another format.

    Args:
        source: A run directory, or anything that is a teacher.
        to: One of `FORMATS`.
        out: The file or folder to make.
        calibration: Audio on which scales are found; by default the run's, or the embedded clips.

    Raises:
        ConfigError: A package is missing, the format cannot hold the network, or takes no calibration.
        DataError: The source cannot be read, or there is not enough audio to calibrate on.
        ProofError: What was written does not behave as the network does; nothing is left of it.
    """
    form = format_named(to)
    if calibration is not None and not form.calibrated:
        names = ", ".join(name for name in FORMATS if format_named(name).calibrated)
        raise ConfigError("the format takes no calibration", where=to, expected=f"one of {names}")
    form.needs()
    teacher = load_teacher(source)
    checkpoint = from_encoder(teacher.encoder)
    refusal = form.refusal(checkpoint)
    if refusal:
        others = ", ".join(name for name in FORMATS if not format_named(name).refusal(checkpoint))
        raise ConfigError(f"{to} cannot hold this network", where=source, got=refusal, hint=f"these can: {others}")
    assert form.write is not None
    found = find_calibration(source, calibration or ()) if form.lossy else None
    if found and form.calibrated:
        checkpoint = replace(checkpoint, calibration=found.clips)
    compared = _noise() if found is None else ((clip[None], torch.tensor([len(clip)])) for clip in found.held_out)
    report = read_report(source) or {}
    with assembled(out) as place:
        if not form.suffix:
            place.mkdir()
        notes = form.write(checkpoint, place, model_card(teacher.name, checkpoint, report))
        difference, noise = _difference(form, place, to_encoder(checkpoint, source), compared)
        if not (noise if form.lossy else difference) <= form.tolerance:
            got, expected = f"a relative difference of {difference:.1e}", f"at most {form.tolerance}"
            if form.lossy:
                got = f"a signal-to-noise ratio of {decibels(noise):.1f} dB"
                expected = f"{decibels(form.tolerance):.0f} dB or more"
            raise ProofError(
                f"the {to} export does not behave as the network", where=source, got=got, expected=expected
            )
        written = size_on_disk(place)
    if found and form.calibrated:
        notes = [*notes, f"calibrated on {found.seconds:.0f} s of audio from {found.source}"]
    kept = sum(parameter.numel() for parameter in teacher.encoder.parameters())
    before = report.get("params_before")
    return Export(
        source=source,
        format=to,
        path=str(out),
        parameters=kept,
        max_relative_difference=difference,
        signal_to_noise_db=decibels(noise) if form.lossy else None,
        file_bytes=written,
        float32_bytes=FLOAT32_BYTES * kept,
        dense_bytes=FLOAT32_BYTES * before if isinstance(before, int) else None,
        notes=(*teacher.notes, *notes, f"opened again by {form.opened_by}"),
    )


def _noise() -> Iterator[tuple[Tensor, Tensor]]:
    """Waveforms (B, samples) and lengths (B,), batches of several sizes."""
    generator = torch.Generator().manual_seed(0)
    for seconds in _CLIPS:
        lengths = torch.tensor([round(clip * SAMPLE_RATE) for clip in seconds])
        waveforms = 0.1 * torch.randn(len(seconds), int(lengths.max()), generator=generator)
        waveforms[torch.arange(waveforms.shape[1]) >= lengths[:, None]] = 0
        yield waveforms, lengths


def _difference(
    form: Format, place: Path, encoder: SpeechEncoder, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[float, float]:
    """The largest relative difference over batches, and the largest share of noise."""
    assert form.open is not None
    run, largest, noisiest = form.open(place), 0.0, 0.0
    with torch.no_grad():
        for waveforms, lengths in batches:
            expected, got = list(form.expected(encoder, waveforms, lengths)), list(run(waveforms, lengths))
            difference = relative_difference(expected, got)
            # A NaN must not pass for small.
            largest = difference if not difference <= largest else largest
            noisiest = max(noisiest, relative_noise(expected, got))
    return largest, noisiest
