"""Networks into other stacks' formats: written, opened again as their users would, compared, then put in place.

Legend: B batch, T frames, D residual width, L transformer layers.
"""

from pathlib import Path

import torch

from l0prune import ConfigError, Export, ProofError, assembled, read_report, relative_difference
from l0prune_speech.data import SAMPLE_RATE
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


def export_network(source: str, to: str, out: Path) -> Export:
    """Write a network in another format.

    Args:
        source: A run directory, or anything that is a teacher.
        to: One of `FORMATS`.
        out: The file or folder to make.

    Raises:
        ConfigError: A package is missing, or the format cannot hold the network.
        DataError: The source cannot be read.
        ProofError: What was written does not behave as the network does; nothing is left of it.
    """
    form = format_named(to)
    form.needs()
    teacher = load_teacher(source)
    checkpoint = from_encoder(teacher.encoder)
    refusal = form.refusal(checkpoint)
    if refusal:
        others = ", ".join(name for name in FORMATS if not format_named(name).refusal(checkpoint))
        raise ConfigError(f"{to} cannot hold this network", where=source, got=refusal, hint=f"these can: {others}")
    assert form.write is not None
    with assembled(out) as place:
        if not form.suffix:
            place.mkdir()
        notes = form.write(checkpoint, place, model_card(teacher.name, checkpoint, read_report(source) or {}))
        difference = _difference(form, place, to_encoder(checkpoint, source))
        if not difference <= form.tolerance:
            got, expected = f"a relative difference of {difference:.1e}", f"at most {form.tolerance}"
            raise ProofError(
                f"the {to} export does not behave as the network", where=source, got=got, expected=expected
            )
    return Export(
        source=source,
        format=to,
        path=str(out),
        parameters=sum(parameter.numel() for parameter in teacher.encoder.parameters()),
        max_relative_difference=difference,
        notes=(*teacher.notes, *notes, f"opened again by {form.opened_by}"),
    )


def _difference(form: Format, place: Path, encoder: SpeechEncoder) -> float:
    """The largest relative difference over batches of several sizes and lengths."""
    assert form.open is not None
    run, generator, largest = form.open(place), torch.Generator().manual_seed(0), 0.0
    with torch.no_grad():
        for seconds in _CLIPS:
            lengths = torch.tensor([round(clip * SAMPLE_RATE) for clip in seconds])
            waveforms = 0.1 * torch.randn(len(seconds), int(lengths.max()), generator=generator)
            waveforms[torch.arange(waveforms.shape[1]) >= lengths[:, None]] = 0
            difference = relative_difference(
                list(form.expected(encoder, waveforms, lengths)), list(run(waveforms, lengths))
            )
            # A NaN must not pass for small.
            largest = difference if not difference <= largest else largest
    return largest
