"""Networks into other stacks' formats: written, opened again as their users would, compared, then put in place.

Legend: B batch, T frames, D residual width, L transformer layers.
"""

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l0prune import ConfigError, Export, ProofError, assembled, read_report, relative_difference
from l0prune_speech.data.audio import SAMPLE_RATE
from l0prune_speech.encoder.modules import SpeechEncoder, normalized
from l0prune_speech.formats import graphs
from l0prune_speech.formats.card import model_card
from l0prune_speech.formats.checkpoint import Checkpoint, from_encoder, to_encoder
from l0prune_speech.formats.dphubert import from_dphubert, to_diarizen, to_dphubert
from l0prune_speech.formats.huggingface import to_huggingface
from l0prune_speech.formats.pickled import read_pickled
from l0prune_speech.formats.registry import FORMATS
from l0prune_speech.formats.s3prl import to_s3prl
from l0prune_speech.formats.teachers import load_teacher

_CLIPS = ((2.0, 1.3), (0.05,), (0.7, 3.07, 1.9))
"""Seconds of each clip of the batches on which an export is compared; frames are 20 ms."""

Outputs = Sequence[Tensor]
Run = Callable[[Tensor, Tensor], Outputs]
"""waveforms (B, samples), lengths (B,) -> hidden states (B, T, D)."""


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How a format is written and opened."""

    write: Callable[[Checkpoint, Path, str], list[str]]
    """Checkpoint, path, model card -> notes."""
    open: Callable[[Path], Run]
    """Runs what was written, as its users would."""
    expected: Callable[[SpeechEncoder, Tensor, Tensor], Outputs]
    """The same outputs of the network itself."""
    tolerance: float = 1e-5
    refusal: Callable[[Checkpoint], str | None] = lambda _checkpoint: None
    """Why the format cannot hold a network, if it cannot."""


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
    way = _WAYS[to]()
    teacher = load_teacher(source)
    checkpoint = from_encoder(teacher.encoder)
    refusal = way.refusal(checkpoint)
    if refusal:
        others = ", ".join(name for name in FORMATS if name != to)
        raise ConfigError(f"{to} cannot hold this network", where=source, got=refusal, hint=f"these can: {others}")
    with assembled(out) as place:
        if not FORMATS[to].suffix:
            place.mkdir()
        notes = way.write(checkpoint, place, model_card(teacher.name, checkpoint, read_report(source) or {}))
        difference = _difference(way, place, to_encoder(checkpoint, source))
        if not difference <= way.tolerance:
            got, expected = f"a relative difference of {difference:.1e}", f"at most {way.tolerance}"
            raise ProofError(
                f"the {to} export does not behave as the network", where=source, got=got, expected=expected
            )
    return Export(
        source=source,
        format=to,
        path=str(out),
        parameters=sum(parameter.numel() for parameter in teacher.encoder.parameters()),
        max_relative_difference=difference,
        notes=(*teacher.notes, *notes),
    )


def _difference(way: _Way, place: Path, encoder: SpeechEncoder) -> float:
    """The largest relative difference over batches of several sizes and lengths."""
    run, generator, largest = way.open(place), torch.Generator().manual_seed(0), 0.0
    with torch.no_grad():
        for seconds in _CLIPS:
            lengths = torch.tensor([round(clip * SAMPLE_RATE) for clip in seconds])
            waveforms = 0.1 * torch.randn(len(seconds), int(lengths.max()), generator=generator)
            waveforms[torch.arange(waveforms.shape[1]) >= lengths[:, None]] = 0
            difference = relative_difference(
                list(way.expected(encoder, waveforms, lengths)), list(run(waveforms, lengths))
            )
            # A NaN must not pass for small.
            largest = difference if not difference <= largest else largest
    return largest


def _hidden_states(encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Outputs:
    return encoder.hidden_states(waveforms, None, lengths)


def _program_outputs(encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Outputs:
    last, frames = encoder(waveforms, lengths)
    return [last, torch.stack(encoder.hidden_states(waveforms, None, lengths)), frames.double()]


def _huggingface_outputs(encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Outputs:
    # transformers counts the states from behind the positional convolution, and may norm the last one.
    return [*encoder.hidden_states(waveforms, None, lengths)[1:-1], encoder(waveforms, lengths)[0]]


def _open_pickled(path: Path) -> Run:
    encoder = to_encoder(from_dphubert(read_pickled(path), path), path)
    return lambda waveforms, lengths: encoder.hidden_states(waveforms, None, lengths)


def _open_huggingface(folder: Path) -> Run:
    transformers = _transformers()
    with _quiet(transformers):
        config = transformers.AutoConfig.from_pretrained(folder)
        name = config.architectures[0]
        if name.startswith("Pruned"):
            # The very file that the folder holds, without a copy of it in the user's cache.
            from l0prune_speech.formats import modeling_l0prune as home
        else:
            home = transformers
        model = getattr(home, name).from_pretrained(folder, config=config).eval()
        normalizes = transformers.AutoFeatureExtractor.from_pretrained(folder).do_normalize

    def run(waveforms: Tensor, lengths: Tensor) -> Outputs:
        # transformers' own normalisation adds another epsilon to the variance.
        values = normalized(waveforms, lengths) if normalizes else waveforms
        mask = (torch.arange(waveforms.shape[1]) < lengths[:, None]).long()
        with warnings.catch_warnings():
            # transformers' WavLM gives torch masks of two types.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            outputs = model(values, attention_mask=mask, output_hidden_states=True)
        return [*outputs.hidden_states[1:-1], outputs.last_hidden_state]

    return run


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars of transformers meanwhile."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        hint = "pip install 'l0prune[huggingface]'"
        raise ConfigError("the export is checked with transformers, which is missing", hint=hint) from error
    return transformers


def _open_s3prl(folder: Path) -> Run:
    """The upstream as s3prl imports it: a package's module."""
    package = importlib.util.spec_from_file_location(
        "_l0prune_upstream", folder / "hubconf.py", submodule_search_locations=[str(folder)]
    )
    assert package is not None
    assert package.loader is not None
    hubconf = importlib.util.module_from_spec(package)
    sys.modules[package.name] = hubconf
    try:
        package.loader.exec_module(hubconf)
        expert = hubconf.l0prune_student().eval()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
            del sys.modules[name]

    def run(waveforms: Tensor, lengths: Tensor) -> Outputs:
        clips = [waveform[:length] for waveform, length in zip(waveforms, lengths.tolist(), strict=True)]
        return expert(clips)["hidden_states"]

    return run


def _graph(write: Callable[[Checkpoint, Path], list[str]], run: Callable[[Path], Run], **more: Any) -> _Way:
    def opened(path: Path) -> Run:
        program = run(path)

        def outputs(waveforms: Tensor, lengths: Tensor) -> Outputs:
            last, states, frames = program(waveforms, lengths)
            # Counts are compared too, as numbers with fractions are.
            return [last, states, frames.double()]

        return outputs

    return _Way(
        write=lambda checkpoint, path, card: write(checkpoint, path),
        open=opened,
        expected=_program_outputs,
        **more,
    )


def _plain(write: Callable[[Checkpoint, Path], list[str]], run: Callable[[Path], Run]) -> _Way:
    return _Way(write=lambda checkpoint, path, card: write(checkpoint, path), open=run, expected=_hidden_states)


def _huggingface() -> _Way:
    _transformers()
    return _Way(write=to_huggingface, open=_open_huggingface, expected=_huggingface_outputs)


def _onnx() -> _Way:
    graphs.check_onnx()
    return _graph(graphs.to_onnx, graphs.run_onnx, tolerance=1e-4, refusal=graphs.too_large_for_onnx)


_WAYS: Mapping[str, Callable[[], _Way]] = {
    "dphubert": lambda: _plain(to_dphubert, _open_pickled),
    "diarizen": lambda: _plain(to_diarizen, _open_pickled),
    "huggingface": _huggingface,
    "onnx": _onnx,
    "torchscript": lambda: _graph(graphs.to_torchscript, graphs.run_torchscript),
    "torch.export": lambda: _graph(graphs.to_torch_export, graphs.run_torch_export),
    "s3prl": lambda: _plain(to_s3prl, _open_s3prl),
}
