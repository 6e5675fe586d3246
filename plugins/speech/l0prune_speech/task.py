"""One speech run: teacher, student, groups, objective and data put together."""

import copy
import itertools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from l0prune import ConfigError, DataError, RunConfig, Task, nearest, pick_device
from l0prune_speech.data import (
    SAMPLE_RATE,
    AudioBatches,
    Framing,
    Sound,
    Sounds,
    clips_digest,
    find_sounds,
    fixed_batches,
)
from l0prune_speech.deploy import for_inference
from l0prune_speech.distillation import (
    Distillation,
    TargetCache,
    TermSettings,
    active,
    check_frames,
    check_layers,
    check_library,
    check_room,
    check_terms,
    check_weights,
    matched_layers,
    set_dropout,
    teacher_digest,
    unit_layers,
)
from l0prune_speech.encoder import SpeechEncoder, encoder_groups
from l0prune_speech.formats import load_teacher
from l0prune_speech.options import PACKAGES, SpeechOptions
from l0prune_speech.streaming import StreamStep, hears_whole_clips, streaming_encoder
from l0prune_speech.units import UNITS

_MACS_SECONDS = 10
_LEVEL_SECONDS = 60.0
"""Audio, of the first epoch, from which a streaming student begins with its level."""
_FOUND = frozenset({"means", "units", "masked_units"})
"""What is compared by what is found in some audio before the first step."""


def make_task(options: SpeechOptions, run: RunConfig) -> Task:
    """Load teacher and data; the student begins as a copy of the teacher."""
    device = pick_device(run.device)
    for kind in run.gates.drop_rates:
        if kind not in UNITS:
            raise ConfigError("no such kind of unit", where=f"gates.drop_rates.{kind}", hint=nearest(kind, UNITS))
    weights = options.term_weights()
    check_weights(weights)
    teacher = load_teacher(options.teacher)
    depth = int(teacher.config["encoder_num_layers"])
    layers = _layers(options, depth=depth)
    streams = options.streaming is not None or teacher.config.get("streaming") is not None
    kinds = _check_terms(options, run, weights, layers, streams=streams)
    _check_lengths(options, teacher.config["extractor_conv_layer_config"])
    data = _find(options, run.seed)
    held_out, train = held_out_and_train(data.sounds, options.evaluation_seconds)
    batches = AudioBatches(
        clips=train,
        batch_seconds=options.batch_seconds,
        max_seconds=options.max_seconds,
        seed=run.seed,
        crop_epochs=options.crop_epochs,
        workers=options.workers,
        pin_memory=device.type == "cuda",
    )
    student = _student(options, teacher.encoder, batches).requires_grad_(True)
    set_dropout(student, dropout=options.dropout, layer_drop=options.layer_drop)
    student.encoder.transformer.activation_checkpointing = options.activation_checkpointing  # type: ignore[union-attr]
    groups = encoder_groups(student, options.units)
    surveyed = _surveyed(batches, options.unit_seconds) if kinds & _FOUND else 0
    unit_fact = _unit_fact(options, kinds, teacher.config, depth, batches, surveyed)
    numbers = _numbers_a_frame(options, kinds, layers, teacher.config)
    cache, cache_fact = _cache(options, teacher.encoder, layers, batches.seconds_per_epoch, numbers)
    objective = Distillation(
        student,
        teacher.encoder.to(device),
        layers=layers,
        mode=options.mode,
        weights=weights,
        cache=cache,
        settings=_term_settings(options),
        survey=lambda: itertools.islice(replace(batches, workers=0)(0), surveyed),
    ).to(device)
    probe = torch.randn(2, SAMPLE_RATE // 2, generator=torch.Generator().manual_seed(0)).to(device)
    ten_seconds = torch.zeros(1, _MACS_SECONDS * SAMPLE_RATE, device=device)
    return Task(
        objective=objective,
        groups=groups,
        batches=batches,
        observe=lambda model: _hidden_states(model, probe),
        evaluation=fixed_batches(held_out, batch_seconds=options.batch_seconds, max_seconds=options.max_seconds),
        architecture=student.config,
        teacher=teacher.name,
        facts={
            "data": data.text,
            "held out": f"{sum(clip.duration_seconds for clip in held_out):.0f} seconds, clips: {len(held_out)}",
            "matched layers": ", ".join(map(str, layers)),
            **({"teacher": "; ".join(teacher.notes)} if teacher.notes else {}),
            **_streaming_fact(student, teacher.encoder),
            **unit_fact,
            **cache_fact,
        },
        data_digest=f"{teacher_digest(teacher.encoder, layers)} {clips_digest(train)} {clips_digest(held_out)}",
        describe_batch=_describe_batch,
        unit="seconds of audio",
        macs_per="second of audio, in a clip of 10 seconds",
        observe_for_macs=lambda model: _observe_load(model, ten_seconds),
        macs_scale=1 / _MACS_SECONDS,
        packages=PACKAGES,
        deploy=_InChunks(repr(streaming)) if (streaming := student.config.get("streaming")) else _deployed,
        kinds=UNITS,
    )


def _describe_batch(batch: torch.Tensor) -> str:
    clips, seconds = len(batch), batch.shape[1] / SAMPLE_RATE
    return (
        f"it holds {clips} clips of {seconds:.1f} s, {clips * seconds:.0f} s of audio: lower speech.batch_seconds and "
        "raise joint.micro_batches and further.micro_batches alike"
    )


def _cache(
    options: SpeechOptions,
    teacher: SpeechEncoder,
    layers: Sequence[int],
    seconds_per_epoch: float,
    numbers_a_frame: int,
) -> tuple[TargetCache | None, dict[str, str]]:
    """The teacher's cache, and what to say of its size."""
    if not options.cache:
        return None, {}
    framing = Framing.of_convolutions(teacher.config["extractor_conv_layer_config"])
    frames = options.crop_epochs * seconds_per_epoch * framing.per_second
    # In bfloat16 half of it.
    whole = frames * numbers_a_frame * 4
    folder, most = Path(options.cache), options.cache_gigabytes * 1e9
    check_room(folder, round(min(whole, most)))
    fact = f"{folder}, at most {whole / 1e9:.2f} GB for {options.crop_epochs} epochs"
    if whole > most:
        fact += f", of which {options.cache_gigabytes:g} GB are kept"
    return TargetCache(folder, teacher_digest(teacher, layers), round(most)), {"teacher's cache": fact}


def _numbers_a_frame(options: SpeechOptions, kinds: Set[str], layers: Sequence[int], config: Mapping[str, Any]) -> int:
    """How many numbers a cache holds of each frame, at most."""
    depth, states = int(config["encoder_num_layers"]), set[int]()
    above = [layer for layer in layers if layer]
    if "states" in kinds:
        states |= {*layers}
    if "steps" in kinds:
        states |= {*above, *(layer - 1 for layer in above)}
    if kinds & {"units", "masked_units"}:
        states |= {*(options.unit_layers or unit_layers(depth))}
    means = options.layer_clusters if "means" in kinds else 0
    framing = Framing.of_convolutions(config["extractor_conv_layer_config"])
    longest = framing.frames(int(min(options.max_seconds, options.batch_seconds) * SAMPLE_RATE))
    relations = len(above) * len(kinds & {"maps", "value_relations"})
    return int(config["encoder_embed_dim"]) * (len(states) + means) + relations * longest


def _hidden_states(model: nn.Module, waveforms: torch.Tensor) -> list[torch.Tensor]:
    assert isinstance(model, SpeechEncoder)
    return model.hidden_states(waveforms)


def _deployed(model: nn.Module) -> nn.Module:
    """An encoder in the form in which it runs."""
    assert isinstance(model, SpeechEncoder)
    return for_inference(model)


@dataclass(frozen=True)
class _InChunks:
    """Gives a streaming encoder the form in which it runs: chunk by chunk."""

    form: str
    """The frames of a chunk and of its contexts, on which its time depends."""

    def __call__(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, SpeechEncoder)
        return StreamStep(model)


def _observe_load(model: nn.Module, ten_seconds: torch.Tensor) -> Any:
    """Run an encoder on ten seconds; one that runs chunk by chunk on a chunk, which is what its latency is."""
    return model(*model.example()) if isinstance(model, StreamStep) else model(ten_seconds)


def _student(options: SpeechOptions, teacher: SpeechEncoder, batches: AudioBatches) -> SpeechEncoder:
    """A copy of the teacher; one that hears chunks where it is asked for."""
    wanted = options.streaming
    if wanted is None:
        return copy.deepcopy(teacher)
    heard: list[torch.Tensor] = []
    if hears_whole_clips(teacher):
        heard += itertools.islice(replace(batches, workers=0)(0), _surveyed(batches, _LEVEL_SECONDS))
    return streaming_encoder(
        teacher, chunk_ms=wanted.chunk_ms, left_ms=wanted.left_ms, right_ms=wanted.right_ms, audio=heard
    )


def _streaming_fact(student: SpeechEncoder, teacher: SpeechEncoder) -> dict[str, str]:
    """What to say of chunks, and of what takes the place of statistics of whole clips."""
    if student.encoder.transformer.chunks is None:  # type: ignore[union-attr]
        return {}
    layout = StreamStep(student).layout
    frame = 1000 * layout.step_samples / SAMPLE_RATE
    lengths = (frame * frames for frames in (layout.chunk_frames, layout.left_frames, layout.right_frames))
    said = "chunks of {:g} ms, {:g} ms to the left, {:g} ms to the right".format(*lengths)
    said += f"; a chunk can be computed {layout.latency_ms:g} ms after it began"
    if student.level is not None:
        said += "; audio is normalised by what was heard so far"
    if isinstance(teacher.get_submodule("feature_extractor.conv_layers.0").layer_norm, nn.GroupNorm):
        said += ", and factors of channels take the place of the group norm, which hears whole clips"
    return {"streaming": said}


def _layers(options: SpeechOptions, depth: int) -> tuple[int, ...]:
    layers = tuple(range(depth + 1)) if options.every_layer else options.matched_layers or matched_layers(depth)
    check_layers(layers, depth)
    return layers


def _check_terms(
    options: SpeechOptions, run: RunConfig, weights: Mapping[str, float], layers: Sequence[int], *, streams: bool
) -> set[str]:
    """What the terms compare, once it is known to be there."""
    check_terms(weights, layers=layers, mode=options.mode)
    kinds: set[str] = {term.between for term in active(weights)}
    if kinds & _FOUND:
        check_library()
    if kinds & {"maps", "value_relations"} and run.compile:
        name = next(term.name for term in active(weights) if term.between in ("maps", "value_relations"))
        hint = "leave out --compile, or the term"
        raise ConfigError("a compiled layer does not show its attention", where=f"speech.terms.{name}", hint=hint)
    if kinds & {"maps", "value_relations"} and streams:
        name = next(term.name for term in active(weights) if term.between in ("maps", "value_relations"))
        hint = "leave out the term: the student attends to chunks, the teacher to whole clips"
        raise ConfigError("attention of a streaming student is not compared", where=f"speech.terms.{name}", hint=hint)
    return kinds


def _term_settings(options: SpeechOptions) -> TermSettings:
    return TermSettings(**{field.name: getattr(options, field.name) for field in fields(TermSettings)})


def _surveyed(batches: AudioBatches, seconds: float) -> int:
    """How many batches of the first epoch hold as many seconds, or are all that it has."""
    heard, plan = 0.0, batches.plan(0)
    for number, batch in enumerate(plan):
        if heard >= seconds:
            return number
        heard += sum(crop.samples for crop in batch) / SAMPLE_RATE
    return len(plan)


def _unit_fact(
    options: SpeechOptions,
    kinds: Set[str],
    config: Mapping[str, Any],
    depth: int,
    batches: AudioBatches,
    surveyed: int,
) -> dict[str, str]:
    """What to say of units, whose frames are enough."""
    if not kinds & {"units", "masked_units"}:
        return {}
    framing = Framing.of_convolutions(config["extractor_conv_layer_config"])
    frames = sum(framing.frames(crop.samples) for batch in batches.plan(0)[:surveyed] for crop in batch)
    check_frames(frames, options.unit_count)
    layers = options.unit_layers or unit_layers(depth)
    check_layers(layers, depth, where="speech.unit_layers")
    return {"units": f"{options.unit_count} of layer {', '.join(map(str, layers))}, from {frames} frames"}


def _check_lengths(options: SpeechOptions, convolutions: Sequence[Sequence[int]]) -> None:
    """Raise a `ConfigError` where a clip could be too short for a single frame."""
    shortest = Framing.of_convolutions(convolutions).shortest_samples
    for name in ("min_seconds", "max_seconds", "batch_seconds"):
        value = getattr(options, name)
        if value * SAMPLE_RATE < shortest:
            raise ConfigError(
                "too short for the network",
                where=f"speech.{name}",
                got=value,
                expected=f"{shortest / SAMPLE_RATE} or more",
            )


def _find(options: SpeechOptions, seed: int) -> Sounds:
    """The clips of a run without labels, and windows of short ones; by default the embedded clips."""
    with as_file(files("l0prune_speech") / "assets" / "speech") as folder:
        paths = [Path(path) for path in options.data] or [folder]
        return find_sounds(paths, min_seconds=options.min_seconds, short_clips=options.short_clips, seed=seed)


def held_out_and_train(clips: tuple[Sound, ...], evaluation_seconds: float) -> tuple[list[Sound], list[Sound]]:
    """Evenly spaced clips for evaluation, at most a fifth of the audio, and the others for training."""
    total = sum(clip.duration_seconds for clip in clips)
    wanted = min(evaluation_seconds, total / 5)
    # Of few long clips one is held out.
    stride = max(2, min(round(total / wanted), len(clips)))
    first = stride // 2
    held_out = list(clips[first::stride])
    train = [clip for number, clip in enumerate(clips) if number % stride != first]
    if not held_out or not train:
        raise DataError("too few clips to hold some out", got=len(clips), expected="at least 2")
    return held_out, train
