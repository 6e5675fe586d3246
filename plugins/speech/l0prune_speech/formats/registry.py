"""The checkpoint formats of speech encoders. Each is one file, which says all of it in one registration.

Legend: B batch, T frames, D residual width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from l0prune import ConfigError, ExportFormat
from l0prune.support import Registry
from l0prune_speech.extensions import load_extensions

if TYPE_CHECKING:
    from torch import Tensor

    from l0prune_speech.encoder import SpeechEncoder
    from l0prune_speech.formats.checkpoint import Checkpoint
    from l0prune_speech.formats.source import Source

Outputs = Sequence["Tensor"]
Run = Callable[["Tensor", "Tensor"], Outputs]
"""waveforms (B, samples), lengths (B,) -> outputs such as hidden states (B, T, D)."""

_FILES = (
    "diarizen",
    "dphubert",
    "fairseq",
    "huggingface",
    "onnx_int8",
    "onnx_model",
    "onnx_streaming",
    "s3prl",
    "torch_export",
    "torch_export_streaming",
    "torch_int8",
    "torchaudio_names",
    "torchscript",
)
"""Those of this package that register a format."""


def _hidden_states(encoder: "SpeechEncoder", waveforms: "Tensor", lengths: "Tensor") -> Outputs:
    return encoder.hidden_states(waveforms, None, lengths)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A checkpoint format: what it reads, writes, opens, expects and refuses.

    One that is only read has no `write`; one that is only written has no `read`.
    """

    name: str
    """As in `--to NAME`."""
    reads: str = ""
    """What can be a teacher, in words, for messages."""
    claims: "Callable[[Source], bool] | None" = None
    """Whether a file or folder is of this format. Later registrations are asked first."""
    read: "Callable[[Source], Checkpoint] | None" = None
    """Reads what it claims."""
    holds: str = ""
    """What is written, and what it can and cannot hold, in words."""
    suffix: str = ""
    """Of the file that is written; a folder has none."""
    write: "Callable[[Checkpoint, Path, str], list[str]] | None" = None
    """Checkpoint, a file's path or an empty folder, and the text of a model card -> notes for the user."""
    open: Callable[[Path], Run] | None = None
    """Runs what was written as its users would."""
    opened_by: str = ""
    """Whose code that is, in words."""
    expected: "Callable[[SpeechEncoder, Tensor, Tensor], Outputs]" = _hidden_states
    """What the encoder itself gives for waveforms (B, samples) and lengths (B,), in place of what `open` gives."""
    tolerance: float = 1e-5
    """The largest relative difference between the two; of a lossy format the largest share of noise, by root mean
    squares."""
    lossy: bool = False
    """Whether its numbers are rounded, so that outputs have noise: it is compared on speech, not on noise."""
    calibrated: bool = False
    """Whether writing it takes clips that stand in `Checkpoint.calibration`."""
    refuses: "Callable[[Checkpoint], str | None]" = lambda _checkpoint: None
    """Why the format cannot hold a network, or None."""
    holds_streaming: bool = False
    """Whether those who run what is written see chunks where the network does; otherwise streaming ones are refused."""
    needs: Callable[[], None] = lambda: None
    """Raises a `ConfigError` where a package is missing that `write` or `open` takes."""

    def refusal(self, checkpoint: "Checkpoint") -> str | None:
        """Why the format cannot hold a network, or None."""
        if checkpoint.config.get("streaming") is not None and not self.holds_streaming:
            return "it does not hold the chunks of a streaming network, which would hear whole clips there"
        return self.refuses(checkpoint)


_FORMATS: Registry[str, Format] = Registry(
    "format", unknown="no such format", own=[f"l0prune_speech.formats.{file}" for file in _FILES]
)


def register_format(form: Format, *, replace: bool = False) -> Format:
    """Let `--teacher` read a format, and `l0prune export --to NAME` write it.

    Args:
        form: The format.
        replace: Take the place of one of the same name.

    Raises:
        ConfigError: It is no format, it neither reads nor writes, a part of it is missing, or its name is taken.
    """
    if not isinstance(form, Format):
        raise ConfigError("not a format", got=repr(form), expected="an instance of l0prune_speech.formats.Format")
    _FORMATS.load()
    if not form.name:
        raise ConfigError("the format has no name", got=repr(form.name))
    reading = (form.read, form.claims, form.reads)
    writing = (form.write, form.open, form.opened_by, form.holds)
    if not any(reading) and not any(writing):
        raise ConfigError("the format neither reads nor writes", where=form.name)
    if any(reading) and not all(reading):
        raise ConfigError("the format reads, but not wholly", where=form.name, expected="read, claims and reads")
    if any(writing) and not all(writing):
        expected = "write, open, opened_by and holds"
        raise ConfigError("the format writes, but not wholly", where=form.name, expected=expected)
    return _FORMATS.register(form.name, form, replace=replace)


def formats() -> Mapping[str, Format]:
    """Every format by name, those of other distributions last."""
    _FORMATS.load()
    load_extensions()
    return _FORMATS


def format_named(name: str) -> Format:
    """The format of a name that can be written.

    Raises:
        ConfigError: There is none.
    """
    written = list(FORMATS)
    return _FORMATS.named(name, among=written, where=name, got=None, expected=", ".join(written))


class _Written(Mapping[str, ExportFormat]):
    """What the formats that can be written hold, by name. Loads them at first use: that takes torch."""

    def __getitem__(self, name: str) -> ExportFormat:
        form = formats()[name]
        if form.write is None:
            raise KeyError(name)
        return ExportFormat(holds=form.holds, suffix=form.suffix)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(name for name, form in formats().items() if form.write is not None))

    def __len__(self) -> int:
        return sum(1 for _ in self)


FORMATS: Mapping[str, ExportFormat] = _Written()
"""The formats that encoders are exported to, in words, by name."""
