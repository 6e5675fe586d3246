"""The speech plugin: HuBERT and wav2vec 2.0 encoders, compressed by layer-matched distillation."""

import copy
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from l0prune import ConfigError, DataError, RunConfig, Task, pick_device
from l0prune_speech.audio import SAMPLE_RATE, Clip, ClipSet, find_clips
from l0prune_speech.batching import AudioBatches, fixed_batches
from l0prune_speech.distill import DistanceWeights, Distillation, matched_layers, set_dropout
from l0prune_speech.figure import draw_architecture
from l0prune_speech.groups import encoder_groups
from l0prune_speech.modules import SpeechEncoder, build_encoder
from l0prune_speech.teachers import EMBEDDED, load_teacher

_MACS_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """The table [speech] of a configuration."""

    teacher: str = EMBEDDED
    """ "embedded", a torchaudio bundle name, or a teacher file."""
    data: tuple[str, ...] = ()
    """Audio files, folders or tsv manifests; the embedded clips by default."""
    units: tuple[str, ...] = ("conv", "head", "ffn")
    """Kinds of unit to prune: conv, head, ffn, attention, feed_forward."""
    matched_layers: tuple[int, ...] = ()
    """Teacher layers to match; 0 and each third of the depth by default."""
    mode: str = "layers"
    """ "layers" (the paper's) or "prediction" (DistilHuBERT's)."""
    l1_weight: float = 1.0
    l2_weight: float = 0.0
    cosine_weight: float = 1.0
    cosine_form: str = "linear"
    """ "linear" or "log_sigmoid"."""
    dropout: bool = True
    """Train the student with its teacher's dropout rates."""
    layer_drop: float = 0.0
    """Probability of skipping a transformer layer of the student; the published code has none in effect."""
    batch_seconds: float = 40.0
    """Seconds of audio in a batch."""
    min_seconds: float = 2.0
    """Shorter clips are left out, and counted."""
    max_seconds: float = 15.6
    """Longer clips are cropped to this."""
    evaluation_seconds: float = 60.0
    """Audio held out from training, on which the reported losses are measured."""
    workers: int = 1
    """Processes that decode audio."""

    def __post_init__(self) -> None:
        if not 0 <= self.layer_drop < 1:
            raise ConfigError("layer_drop out of range", got=self.layer_drop, expected="0 up to 1")
        for name in ("batch_seconds", "min_seconds", "max_seconds", "evaluation_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} out of range", got=getattr(self, name), expected="above 0")
        if self.workers < 0:
            raise ConfigError("workers out of range", got=self.workers, expected="0 or more")

    @property
    def distance_weights(self) -> DistanceWeights:
        """Weights of the distillation distances."""
        weights = {"l1": self.l1_weight, "l2": self.l2_weight, "cosine": self.cosine_weight}
        return DistanceWeights(**weights, cosine_form=self.cosine_form)


def _recipes() -> dict[str, Mapping[str, Any]]:
    folder = files("l0prune_speech") / "recipes"
    names = ("quick", "dphubert-base", "dphubert-large")
    return {name: tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8")) for name in names}


class SpeechPlugin:
    """HuBERT and wav2vec 2.0 encoders, after DPHuBERT (arXiv 2305.17651)."""

    name: ClassVar[str] = "speech"
    description: ClassVar[str] = "HuBERT and wav2vec 2.0 encoders by joint distillation and pruning (DPHuBERT)"
    options: ClassVar[type] = SpeechOptions

    def __init__(self) -> None:
        self.recipes = _recipes()

    def prepare(self, options: SpeechOptions, run: RunConfig) -> Task:
        """Load teacher and data; the student begins as a copy of the teacher."""
        device = pick_device(run.device)
        teacher = load_teacher(options.teacher)
        layers = _layers(options, depth=int(teacher.config["encoder_num_layers"]))
        student = copy.deepcopy(teacher.encoder).requires_grad_(True)
        set_dropout(student, dropout=options.dropout, layer_drop=options.layer_drop)
        groups = encoder_groups(student, options.units)
        objective = Distillation(
            student,
            teacher.encoder.to(device),
            layers=layers,
            mode=options.mode,
            weights=options.distance_weights,
        ).to(device)
        data = _find(options)
        held_out, train = _split(data.clips, options.evaluation_seconds)
        batches = AudioBatches(
            clips=train,
            batch_seconds=options.batch_seconds,
            max_seconds=options.max_seconds,
            seed=run.seed,
            workers=options.workers,
            pin_memory=device.type == "cuda",
        )
        probe = torch.randn(2, SAMPLE_RATE // 2, generator=torch.Generator().manual_seed(0)).to(device)
        ten_seconds = torch.zeros(1, _MACS_SECONDS * SAMPLE_RATE, device=device)
        return Task(
            objective=objective,
            groups=groups,
            batches=batches,
            observe=lambda model: _hidden_states(model, probe),
            evaluation=fixed_batches(held_out, batch_seconds=options.batch_seconds, max_seconds=options.max_seconds),
            architecture=teacher.config,
            teacher=teacher.name,
            facts={
                "data": data.describe(),
                "held out": f"{len(held_out)} clips, {sum(clip.duration_seconds for clip in held_out):.0f} seconds",
                "matched layers": ", ".join(map(str, layers)),
            },
            unit="seconds of audio",
            macs_per="second of audio, in a clip of 10 seconds",
            observe_for_macs=lambda model: _hidden_states(model, ten_seconds),
            macs_scale=1 / _MACS_SECONDS,
            draw=draw_architecture,
        )

    def build(self, architecture: Mapping[str, Any]) -> nn.Module:
        """The dense encoder of a run's architecture, with random weights."""
        return build_encoder(architecture)


def _hidden_states(model: nn.Module, waveforms: torch.Tensor) -> list[torch.Tensor]:
    assert isinstance(model, SpeechEncoder)
    return model.hidden_states(waveforms)


def _layers(options: SpeechOptions, depth: int) -> tuple[int, ...]:
    layers = options.matched_layers or matched_layers(depth)
    if not all(0 <= layer <= depth for layer in layers):
        raise ConfigError("matched layer does not exist", got=list(layers), expected=f"0 to {depth}")
    return layers


def _find(options: SpeechOptions) -> ClipSet:
    if options.data:
        return find_clips([Path(path) for path in options.data], min_seconds=options.min_seconds)
    with as_file(files("l0prune_speech") / "assets" / "speech") as folder:
        return find_clips([folder], min_seconds=options.min_seconds)


def _split(clips: tuple[Clip, ...], evaluation_seconds: float) -> tuple[list[Clip], list[Clip]]:
    """Evenly spaced clips for evaluation, at most a fifth of the audio, and the others for training."""
    total = sum(clip.duration_seconds for clip in clips)
    wanted = min(evaluation_seconds, total / 5)
    stride = max(2, round(total / wanted))
    first = stride // 2
    held_out = list(clips[first::stride])
    train = [clip for number, clip in enumerate(clips) if number % stride != first]
    if not held_out or not train:
        raise DataError("too few clips to hold some out", got=len(clips), expected="at least 2")
    return held_out, train
