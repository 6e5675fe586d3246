"""The speech plugin: its recipes, and where the work is done. Imports nothing heavy."""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from l0prune import ConfigError, PluginError, RunConfig
from l0prune.plugin import CardFacts
from l0prune_speech.card import card_facts
from l0prune_speech.formats import FORMATS
from l0prune_speech.options import SpeechOptions
from l0prune_speech.probes import HEAD_TASKS, TASKS

if TYPE_CHECKING:
    from torch import nn

    from l0prune import Contender, Evaluation, EvaluationSettings, EvaluationTask, Export, ExportFormat, Load, Task


def _recipes() -> dict[str, Mapping[str, Any]]:
    folder = files("l0prune_speech") / "recipes"
    names = ("quick", "elastic", "dphubert-base", "dphubert-large", "dpwavlm-base-plus", "whisper")
    return {name: tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8")) for name in names}


def _check_torchaudio() -> None:
    """Raise a `PluginError` where torchaudio's library does not fit the installed torch."""
    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError) as error:
        hint = "install torch and torchaudio from the same index, both for the CPU or both for one CUDA version"
        raise PluginError("torchaudio cannot be loaded", got=error, hint=hint) from error
    del torchaudio


class _AllFormats(Mapping[str, "ExportFormat"]):
    """What is written of encoders, and of networks with a class of their own, by name."""

    def __getitem__(self, name: str) -> "ExportFormat":
        from l0prune_speech.deploy import NETWORK_FORMATS

        if name not in NETWORK_FORMATS:
            return FORMATS[name]
        of_networks = f"of a network with a head: {NETWORK_FORMATS[name].holds}"
        if name not in FORMATS:
            return replace(NETWORK_FORMATS[name], holds=of_networks)
        return replace(FORMATS[name], holds=f"{FORMATS[name].holds}; {of_networks}")

    def __iter__(self) -> Iterator[str]:
        from l0prune_speech.deploy import NETWORK_FORMATS

        return iter(sorted({*FORMATS, *NETWORK_FORMATS}))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class SpeechPlugin:
    """HuBERT, WavLM and wav2vec 2.0 encoders, after DPHuBERT (arXiv 2305.17651)."""

    name: ClassVar[str] = "speech"
    description: ClassVar[str] = "HuBERT, WavLM and wav2vec 2.0 encoders by joint distillation and pruning (DPHuBERT)"
    options: ClassVar[type] = SpeechOptions
    formats: ClassVar[Mapping[str, "ExportFormat"]] = _AllFormats()
    tasks: ClassVar[Mapping[str, "EvaluationTask"]] = {**TASKS, **HEAD_TASKS}

    def __init__(self) -> None:
        self.recipes = _recipes()

    def check(self) -> None:
        """Whether torchaudio can be loaded."""
        _check_torchaudio()

    def card_facts(self, options: Mapping[str, Any]) -> CardFacts:
        """What a model card says of a run, from its settings."""
        return card_facts(options)

    def prepare(self, options: SpeechOptions, run: RunConfig) -> "Task":
        """Load teacher and data; the student begins as a copy of the teacher."""
        _check_torchaudio()
        from l0prune_speech.families import has_own_class

        if options.task not in ("", "distill") or has_own_class(options.teacher, options.task):
            if options.streaming is not None:
                hint = "take its encoder alone: --task distill, of a HuBERT, WavLM or wav2vec 2.0 network"
                raise ConfigError("a network with a head cannot stream", where="speech.streaming", hint=hint)
            from l0prune_speech.network_task import make_network_task

            return make_network_task(options, run)
        from l0prune_speech.task import make_task

        return make_task(options, run)

    def build(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """The dense network of a run's architecture, with random weights."""
        _check_torchaudio()
        from l0prune_speech.encoder import build_encoder
        from l0prune_speech.families import build_network

        return build_network(architecture) or build_encoder(architecture)

    def formats_of(self, source: str) -> "Mapping[str, ExportFormat]":
        """The formats for one source: networks with a class of their own have theirs, which are folders."""
        from l0prune_speech.deploy import NETWORK_FORMATS
        from l0prune_speech.families import has_own_class

        return NETWORK_FORMATS if has_own_class(source, "distill") else FORMATS

    def export(self, source: str, to: str, out: Path) -> "Export":
        """Write a run's student, or any teacher, in another format."""
        _check_torchaudio()
        from l0prune_speech.deploy import export_network, export_own
        from l0prune_speech.families import has_own_class

        return (export_own if has_own_class(source, "distill") else export_network)(source, to, out)

    def export_calibrated(self, source: str, to: str, out: Path, calibration: Sequence[str]) -> "Export":
        """Write it in int8, with scales that are found on this audio."""
        _check_torchaudio()
        from l0prune_speech.deploy import export_network, export_own
        from l0prune_speech.families import has_own_class

        return (export_own if has_own_class(source, "distill") else export_network)(source, to, out, calibration)

    def contender(self, source: str, workspace: Path) -> "Contender":
        """A run's student, any teacher or an ONNX export, ready to be measured; networks with their heads."""
        _check_torchaudio()
        from l0prune_speech.deploy import contender, own_contender
        from l0prune_speech.families import has_own_class

        return (own_contender if has_own_class(source) else contender)(source, workspace)

    def load(self, seconds: float, batch: int) -> "Load":
        """Noise of a length, at 16 kHz."""
        from l0prune_speech.deploy import load

        return load(seconds, batch)

    def open(self, source: str) -> "nn.Module":
        """The encoder of a run, an export or any teacher; networks with their heads."""
        _check_torchaudio()
        from l0prune_speech.families import has_own_class, open_network

        if has_own_class(source):
            return open_network(source).model
        from l0prune_speech.formats import load_teacher

        return load_teacher(source).encoder

    def checksum(self, folder: str) -> str | None:
        """The checksum that a Hugging Face folder or an s3prl upstream carries, once it is found right."""
        from l0prune_speech.formats import folder_checksum

        return folder_checksum(Path(folder))

    def evaluate(
        self, models: Sequence[str], settings: "EvaluationSettings", note: Callable[[str], None]
    ) -> "Evaluation":
        """Score networks through their own heads, or encoders by probes.

        Probes take runs' students, teachers, "filterbanks[:cmvn]", or "random:" and any of those encoders.
        """
        _check_torchaudio()
        from l0prune_speech.probes import evaluate_heads, evaluate_models, task_for

        own = [task for task in settings.tasks if task in HEAD_TASKS]
        if own and len(settings.tasks) > 1:
            hint = "a network's own head and probes are scored apart"
            raise ConfigError("several tasks", got=", ".join(settings.tasks), expected=own[0], hint=hint)
        found = {task_for(model) for model in models} if settings.data and not settings.tasks else set()
        if len(found) == 1 and None not in found:
            # Not told what for: as what its head is.
            own = [str(task) for task in found]
            settings = replace(settings, tasks=tuple(own))
        return (evaluate_heads if own else evaluate_models)(models, settings, note)
