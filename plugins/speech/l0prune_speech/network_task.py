"""One run of a network with a class of its own: teacher, student, groups, objective and labelled clips put together."""

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import nn

from l0prune import ConfigError, DataError, L0PruneError, RunConfig, Task, nearest, pick_device
from l0prune_speech.data import (
    Piece,
    PieceBatch,
    PieceBatches,
    find_clips,
    find_labelled,
    find_sounds,
    joined,
    piece,
    split,
)
from l0prune_speech.distillation import TaskDistillation, TaskWeights, check_layers, teacher_digest
from l0prune_speech.families import (
    SpeechNetwork,
    Wish,
    heard_noise,
    network_groups,
    observation_of,
    open_network,
    tokens_of,
)
from l0prune_speech.options import PACKAGES, SpeechOptions
from l0prune_speech.units import UNITS

LABELS = {"ctc": "text", "seq2seq": "text", "classify": "label", "frames": "label", "speaker": "speaker"}
"""What lists of clips hold for each task."""
_UNITS = {name: UNITS[name] for name in ("conv", "head", "ffn")}
_MACS_SECONDS = 10
_PROBE_SECONDS = 1.0
_OF_ENCODERS = (
    "cache",
    "mode",
    "layer_drop",
    "activation_checkpointing",
    "layer_weighting",
    "projections",
    "layer_clusters",
    "unit_layers",
    "unit_count",
    "unit_seconds",
    "mask_probability",
    "mask_frames",
    "masked_share",
)
"""Settings for encoders of torchaudio's layout."""


def make_network_task(options: SpeechOptions, run: RunConfig) -> Task:
    """Load teacher and data; the student begins as a copy of the teacher.

    Raises:
        ConfigError: A setting cannot be used.
        DataError: The teacher or the data cannot.
    """
    device = pick_device(run.device)
    _check(options, run)
    teacher = open_network(options.teacher, Wish(task=options.task, language=options.language))
    pieces, facts = _pieces(options, teacher, run.seed)
    held_out, train = _held_out(pieces, options.evaluation_seconds)
    if options.join_clips and teacher.task in ("distill", "ctc", "seq2seq"):
        before = len(train)
        train = _joined(train, options, teacher, run.seed)
        held_out = _joined(held_out, replace(options, join_rounds=1), teacher, run.seed)
        facts["data"] += f"; {before} joined to {len(train)}"
    held_out, train = ([_answered(teacher, one) for one in part] for part in (held_out, train))
    if remarks := (*teacher.notes, *teacher.remarks()):
        facts["teacher"] = "; ".join(remarks)
    student = _student(teacher, options)
    layers = _layers(options, teacher)
    probe = observation_of(teacher, _PROBE_SECONDS, clips=2)
    groups, left = network_groups(
        student,
        probe,
        units=options.units,
        ignored=(*options.ignored, *teacher.fixed),
        own=teacher.own_groups(student),
    )
    teacher.model.requires_grad_(False).to(device)
    objective = TaskDistillation(
        student,
        teacher,
        layers=layers,
        weights=_weights(options, teacher),
        distances=options.term_weights(),
        most_bytes=round(options.kept_gigabytes * 1e9),
    ).to(device)
    batches = PieceBatches(
        pieces=train,
        inputs=teacher.inputs,
        batch_seconds=options.batch_seconds,
        window_seconds=teacher.window_seconds,
        seed=run.seed,
        workers=options.workers,
    )
    seconds = teacher.window_seconds or _MACS_SECONDS
    tokens = f" and {tokens_of(seconds)} tokens" if teacher.task == "seq2seq" else ""
    return Task(
        objective=objective,
        groups=groups,
        batches=batches,
        observe=probe,
        evaluation=replace(batches, pieces=held_out, workers=0, name="held out").all(),
        architecture={"network": teacher.family, **teacher.architecture},
        teacher=options.teacher,
        facts={
            "task": teacher.task,
            **facts,
            "matched layers": ", ".join(map(str, layers)),
            **({"left alone": f"{len(left)} groups that are not proved, {next(iter(left.items()))}"} if left else {}),
        },
        data_digest=f"{teacher_digest(teacher.model, layers)} {_digest(train)} {_digest(held_out)}",
        describe_batch=_describe_batch,
        unit="seconds of audio",
        macs_per=f"second of audio, in a clip of {seconds:g} seconds{tokens}",
        observe_for_macs=observation_of(teacher, seconds, clips=1),
        macs_scale=1 / seconds,
        packages=(*PACKAGES, "transformers"),
        files=teacher.files,
        kinds=_UNITS,
    )


def _check(options: SpeechOptions, run: RunConfig) -> None:
    for kind in run.gates.drop_rates:
        if kind not in _UNITS:
            raise ConfigError("no such kind of unit", where=f"gates.drop_rates.{kind}", hint=nearest(kind, _UNITS))
    for kind in options.units:
        if kind not in _UNITS:
            raise ConfigError("no such kind of unit", where=kind, expected=", ".join(_UNITS))
    for name in _OF_ENCODERS:
        if getattr(options, name) != SpeechOptions.__dataclass_fields__[name].default:
            hint = "it is for encoders of torchaudio's layout"
            raise ConfigError("this teacher has no use for the setting", where=f"speech.{name}", hint=hint)


def _weights(options: SpeechOptions, teacher: SpeechNetwork) -> TaskWeights:
    """Those of what the teacher has."""
    has_head = teacher.task != "distill"
    weights = TaskWeights(
        layers=options.layer_weight,
        logits=options.terms.get("logits", options.logit_weight) if has_head else 0.0,
        task=options.task_weight if has_head else 0.0,
        temperature=options.temperature,
    )
    if not any((weights.layers, weights.logits, weights.task)):
        expected = "layer_weight, logit_weight or task_weight above 0" if has_head else "layer_weight above 0"
        raise ConfigError("nothing to minimise", got="weights of 0", expected=expected)
    return weights


def _student(teacher: SpeechNetwork, options: SpeechOptions) -> nn.Module:
    """A copy of the teacher that is trained, but for what was not trained in the teacher either, and what is frozen."""
    student = copy.deepcopy(teacher.model)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        # Of a run that was loaded.
        student.requires_grad_(True)
    modules = dict(student.named_modules())
    for name in options.frozen:
        if name not in modules:
            tops = ", ".join(name for name, _ in student.named_children())
            expected = f"a dotted name below {tops}"
            raise ConfigError("no such module to freeze", where=f"speech.frozen: {name}", expected=expected)
        modules[name].requires_grad_(False)
    if teacher.task == "seq2seq" and not options.train_tokens:
        # It is more than half of Whisper tiny. Training it takes an eighth of a step's time.
        student.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise ConfigError("nothing to train", where="speech.frozen", got=", ".join(options.frozen))
    if not options.dropout:
        for module in student.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0  # type: ignore[assignment]
    return student


def _layers(options: SpeechOptions, teacher: SpeechNetwork) -> tuple[int, ...]:
    """The hidden states that are matched."""
    with torch.no_grad():
        heard = heard_noise(teacher, _PROBE_SECONDS)(teacher.model)
    depth = len(heard.states) - 1
    layers = tuple(range(depth + 1)) if options.every_layer else options.matched_layers or (depth,)
    check_layers(layers, depth)
    return tuple(layers)


def _pieces(options: SpeechOptions, teacher: SpeechNetwork, seed: int) -> tuple[list[Piece], dict[str, str]]:
    """What is heard at once, and what to say of it; fits the teacher's window."""
    pieces, facts = _found(options, teacher, seed)
    own = teacher.longest_seconds or math.inf
    if options.window_seconds > own:
        got, expected = f"{options.window_seconds:g}", f"at most {own:g}"
        raise ConfigError("the network has no such window", where="speech.window_seconds", got=got, expected=expected)
    longest = min(own, options.window_seconds or math.inf, math.inf if teacher.window_seconds else options.max_seconds)
    whole = [one for one in pieces if one.seconds <= longest]
    too_long = [one for one in pieces if one.seconds > longest]
    if too_long and all(one.label is None for one in pieces):
        whole += [span for one in too_long for part in one.parts for span in split(part.clip, longest)]
        facts["data"] += f"; {len(too_long)} longer than {longest:g} s split"
    elif too_long:
        facts["data"] += f"; {len(too_long)} longer than {longest:g} s left out: {too_long[0].name} first"
    if not whole:
        hint = "raise speech.max_seconds or speech.window_seconds, or cut the clips and their transcripts"
        shortest = min(one.seconds for one in too_long)
        raise DataError("every clip is too long", got=f"{shortest:.1f} s or more", expected=f"{longest:g}", hint=hint)
    window = options.window_seconds or max(one.seconds for one in whole)
    teacher.fit_window(window)
    if teacher.window_seconds:
        facts["window"] = f"{teacher.window_seconds:g} seconds"
    return whole, facts


def _joined(pieces: Sequence[Piece], options: SpeechOptions, teacher: SpeechNetwork, seed: int) -> list[Piece]:
    """Each piece once a round, in windows of other neighbours."""
    longest = teacher.window_seconds or min(teacher.longest_seconds or math.inf, options.max_seconds)
    labelled, others = ([one for one in pieces if (one.label is None) is bare] for bare in (False, True))
    return [
        window
        for number in range(options.join_rounds)
        for part in (labelled, others)
        for window in joined(part, longest, seed + 1_000_003 * number)
    ]


def _answered(teacher: SpeechNetwork, one: Piece) -> Piece:
    return one if one.label is None else replace(one, answer=_encoded(teacher, one))


def _found(options: SpeechOptions, teacher: SpeechNetwork, seed: int) -> tuple[list[Piece], dict[str, str]]:
    """A piece a clip, or a window of short ones."""
    paths = [Path(path) for path in options.data]
    if teacher.task == "distill" and paths:
        sounds = find_sounds(paths, min_seconds=options.min_seconds, short_clips=options.short_clips, seed=seed)
        return [piece(sound) for sound in sounds.sounds], {"data": sounds.text}
    if not paths:
        with as_file(files("l0prune_speech") / "assets" / "speech") as folder:
            clips = find_clips([folder], min_seconds=options.min_seconds)
        return [piece(clip) for clip in clips.clips], {"data": clips.describe()}
    known = find_labelled(paths, LABELS[teacher.task], min_seconds=options.min_seconds)
    text = known.found.describe()
    labels = f"{len(known.labelled)} clips"
    if known.unlabelled:
        labels = f"the teacher's own answers for {len(known.unlabelled)} of {len(known.found.clips)} clips"
    pieces = [*(piece(one.clip, one.label) for one in known.labelled), *map(piece, known.unlabelled)]
    return pieces, {"data": text, "labels": labels}


def _encoded(teacher: SpeechNetwork, one: Piece) -> tuple[int, ...]:
    assert one.label is not None
    try:
        return teacher.encode(one.label)
    except L0PruneError as error:
        raise type(error)(
            error.what, where=error.where or one.name, got=error.got, expected=error.expected, hint=error.hint
        ) from error


def _held_out(pieces: Sequence[Piece], evaluation_seconds: float) -> tuple[list[Piece], list[Piece]]:
    """Evenly spaced pieces for evaluation, at most a fifth of the audio, and the others for training."""
    total = sum(one.seconds for one in pieces)
    wanted = min(evaluation_seconds, total / 5)
    stride = max(2, min(round(total / wanted), len(pieces)))
    first = stride // 2
    held_out = list(pieces[first::stride])
    train = [one for number, one in enumerate(pieces) if number % stride != first]
    if not held_out or not train:
        raise DataError("too few clips to hold some out", got=len(pieces), expected="at least 2")
    return held_out, train


def _digest(pieces: Sequence[Piece]) -> str:
    """Fingerprint of pieces, by names, places and labels."""
    lines = (f"{one.name} {[part.start_seconds for part in one.parts]} {one.seconds} {one.answer}" for one in pieces)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _describe_batch(batch: PieceBatch) -> str:
    return (
        f"it holds {batch.size} clips, {batch.seconds:.0f} s of audio: lower speech.batch_seconds and "
        "raise joint.micro_batches and further.micro_batches alike"
    )
