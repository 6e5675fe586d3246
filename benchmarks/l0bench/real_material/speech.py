"""Prompts of a telephone exchange, read by professional speakers, with transcripts; 16 kHz, one speaker a language.

    python benchmarks/real_material/speech.py en es      # below runs/material/speech/

Debian's packages asterisk-core-sounds-LANGUAGE-g722 (G.722 sound) and asterisk-core-sounds-LANGUAGE (transcripts), in
en, es, fr, it and ru: 2,781 prompts, 131 minutes. Licence CC-BY-SA-3.0 (Digium); the packages' copyright files are kept
beside the clips.
"""

import argparse
import gzip
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from l0bench.real_material.packages import debian, unpack_debian
from l0prune import DataError, L0PruneError, assembled, write_json

LANGUAGES = ("en", "es", "fr", "it", "ru")
SAMPLE_RATE = 16_000
_CLIPS, _TRANSCRIPTS = "clips.safetensors", "transcripts.tsv"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A clip and what is said in it."""

    name: str
    samples: np.ndarray
    """(S,) int16 at 16 kHz."""
    transcript: str
    """Empty where the package has none."""

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / SAMPLE_RATE


def prompts(language: str, material: Path) -> list[Prompt]:
    """All prompts of a language, by name; they are brought at first use.

    Args:
        language: One of `LANGUAGES`.
        material: The folder that keeps what was brought.

    Raises:
        DataError: A package cannot be brought or read.
    """
    if language not in LANGUAGES:
        raise DataError("no prompts in this language", got=repr(language), expected=", ".join(LANGUAGES))
    folder = material / "speech" / language
    if not folder.exists():
        bring(language, material)
    try:
        clips = load_file(folder / _CLIPS)
        rows = [line.split("\t", 1) for line in (folder / _TRANSCRIPTS).read_text(encoding="utf-8").splitlines()]
        said = {name: text for name, text in rows}
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError("cannot read the prompts", where=folder, got=error, hint="remove the folder") from error
    return [Prompt(name=name, samples=clips[name], transcript=said.get(name, "")) for name in sorted(clips)]


def bring(language: str, material: Path) -> Path:
    """Download, decode and keep a language's prompts; the folder is whole or absent.

    Raises:
        DataError: A package cannot be brought, or holds nothing of this form.
        RunError: The folder cannot be written.
    """
    folder = material / "speech" / language
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        names = [f"asterisk-core-sounds-{language}-g722", f"asterisk-core-sounds-{language}"]
        packages = [debian(name, material.absolute(), work) for name in names]
        unpacked = work / "unpacked"
        unpacked.mkdir()
        for package in packages:
            unpack_debian(package, unpacked)
        clips = _decoded(unpacked)
        said = _transcripts(unpacked, language)
        rights = sorted(unpacked.rglob("copyright"))
        with assembled(folder) as made:
            made.mkdir()
            save_file(clips, made / _CLIPS)
            lines = [f"{name}\t{said[name]}\n" for name in sorted(clips) if name in said]
            (made / _TRANSCRIPTS).write_text("".join(lines), encoding="utf-8")
            (made / "copyright").write_bytes(rights[0].read_bytes() if rights else b"")
            write_json(made / "origin.json", {"packages": [p.name for p in packages], "licence": "CC-BY-SA-3.0"})
    return folder


def _decoded(unpacked: Path) -> dict[str, np.ndarray]:
    """Every clip but the silent and the empty ones, by its path below the sounds' folder with `__` for `/`."""
    roots = [path for path in unpacked.glob("usr/share/asterisk/sounds/*") if path.is_dir() and not path.is_symlink()]
    clips = {}
    for root in roots:
        for path in sorted(root.rglob("*.g722")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[0] != "silence" and len(samples := g722(path)):
                clips["__".join(parts)] = samples
    if not clips:
        raise DataError("the package holds no G.722 clips", where=unpacked.name)
    return clips


def g722(path: Path) -> np.ndarray:
    """Decode a file of raw G.722: (S,) int16 at 16 kHz, sample for sample what the ffmpeg program makes of it.

    An empty file holds no samples.

    Raises:
        DataError: PyAV is not installed, or the file cannot be decoded.
    """
    try:
        import av
    except ImportError as error:
        hint = "bring it with: pip install av"
        raise DataError("a package cannot be brought", where="av (decodes G.722)", got=error, hint=hint) from error
    try:
        with av.open(str(path), format="g722") as sound:
            parts = [frame.to_ndarray()[0] for frame in sound.decode(audio=0)]
            return np.concatenate(parts) if parts else np.empty(0, np.int16)
    except (av.FFmpegError, ValueError) as error:
        raise DataError("a clip cannot be decoded", where=path.name, got=error) from error


def _transcripts(unpacked: Path, language: str) -> dict[str, str]:
    """By clip; remarks in place of words, as `[a tone]`, are none."""
    files = sorted(unpacked.rglob(f"core-sounds-{language}.txt.gz"))
    if not files:
        raise DataError("the package holds no transcripts", where=f"core-sounds-{language}.txt.gz")
    said = {}
    for line in gzip.decompress(files[0].read_bytes()).decode("utf-8", "replace").splitlines():
        name, colon, words = line.partition(":")
        words = " ".join(words.split())
        if colon and not line.startswith(";") and words and words[0] not in "[(<":
            said[name.strip().replace("/", "__")] = words
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring languages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("languages", nargs="*", default=list(LANGUAGES), metavar="LANGUAGE")
    parser.add_argument("--material", type=Path, default=Path("runs/material"), metavar="DIR")
    args = parser.parse_args(arguments)
    try:
        for language in args.languages:
            print(_summary(language, {p.name: p for p in prompts(language, args.material)}))
    except L0PruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _summary(language: str, found: Mapping[str, Prompt]) -> str:
    minutes = sum(prompt.seconds for prompt in found.values()) / 60
    told = sum(bool(prompt.transcript) for prompt in found.values())
    return f"{language}: {len(found)} clips, {minutes:.0f} minutes, {told} with a transcript"
