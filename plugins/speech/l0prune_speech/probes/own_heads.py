"""Networks through their own heads, in the task's own metric: word, character and frame errors, accuracy, EER."""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from l0prune import ConfigError, DataError, Evaluation, EvaluationSettings, Score, pick_device
from l0prune.support import versions
from l0prune_speech.data import LabelledClip, find_labelled, piece
from l0prune_speech.deploy import is_export, opened_network
from l0prune_speech.families import Answer, SpeechNetwork, task_of_head
from l0prune_speech.options import PACKAGES
from l0prune_speech.probes.catalogue import HEAD_TASKS
from l0prune_speech.probes.metrics import equal_error_interval, equal_error_rate

NORMALISATION = "NFKC, lower case, no punctuation but apostrophes within words, one space between words"
_CHARACTERS = "asr characters"
_HOLDS = {"asr": "text", "classify": "label", "frames": "label", "x-vector": "speaker"}
_OF_HEAD = {"ctc": "asr", "seq2seq": "asr", "classify": "classify", "frames": "frames", "speaker": "x-vector"}
"""The task that a head is scored on."""
_DRAWS, _LEVEL = 2000, 0.95
_AT_ONCE = 8


def normalised(text: str) -> str:
    """A transcript as errors are counted on: see `NORMALISATION`."""
    folded = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    kept = "".join(c if c.isalnum() or c == "'" or unicodedata.category(c).startswith("M") else " " for c in folded)
    return " ".join(word for word in (part.strip("'") for part in kept.split()) if word)


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Of each clip."""

    counts: np.ndarray
    """(N,)."""
    lengths: np.ndarray
    """(N,) words, characters, frames or clips."""

    @property
    def share(self) -> float:
        """In all."""
        return float(self.counts.sum() / self.lengths.sum())

    @property
    def capped(self) -> float:
        """With no more errors in a clip than it has words: a decoder that loops in one does not outweigh all others."""
        return float(np.minimum(self.counts, self.lengths).sum() / self.lengths.sum())

    def interval(self, *, capped: bool = False) -> tuple[float, float]:
        """Bootstrap interval of 95 % over clips, of `share` or of `capped`.

        Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation".
        """
        chosen = np.random.default_rng(0).integers(len(self.counts), size=(_DRAWS, len(self.counts)))
        counts = np.minimum(self.counts, self.lengths) if capped else self.counts
        shares = counts[chosen].sum(1) / self.lengths[chosen].sum(1)
        low, high = np.quantile(shares, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return float(low), float(high)


def task_for(model: str) -> str | None:
    """The task that a model's own head is scored on; None where it has none."""
    return _OF_HEAD.get(task_of_head(model))


def evaluate_heads(models: Sequence[str], settings: EvaluationSettings, note: Callable[[str], None]) -> Evaluation:
    """Score networks through their own heads on labelled clips.

    Args:
        models: Runs, and checkpoints with a head.
        settings: One of `HEAD_TASKS`; the clips; the device.
        note: Told how far it is.

    Raises:
        ConfigError: Several tasks, a model without a head for the task, or no data.
        DataError: The data or a model cannot be used.
    """
    (task,) = settings.tasks
    if not settings.data:
        raise ConfigError("no labelled clips", where=task, expected="--data with a list of clips and their labels")
    device = pick_device(settings.device)
    networks = {model: _opened(model, task) for model in models}
    windows = [network.window_seconds for network in networks.values() if network.window_seconds]
    clips = _clips(settings, task, list(networks.values()), min(windows, default=None), note)
    scores: list[Score] = []
    for model, network in networks.items():
        if windows and not is_export(model):
            # What is exported keeps its window.
            network.fit_window(min(windows))
        note(f"{model}: hearing {len(clips)} clips")
        network.model.to(device)
        found = _SCORERS[task](network, clips, device)
        scores += [Score(model=model, task=name, values=(value,), facts=facts) for name, value, facts in found]
        network.model.cpu()
    names = list(dict.fromkeys(score.task for score in scores))
    return Evaluation(
        models={model: {"parameters": network.parameters, "task": network.task} for model, network in networks.items()},
        tasks={name: _describe(name, task, clips, settings) for name in names},
        scores=scores,
        against=settings.against,
        seeds=(),
        versions=versions(*PACKAGES, "transformers"),
    )


def _opened(model: str, task: str) -> SpeechNetwork:
    head = task_of_head(model)
    if _OF_HEAD.get(head) != task:
        hint = "give a run of compress --task, or a checkpoint with such a head"
        raise ConfigError("the model has no head for the task", where=model, got=head, expected=task, hint=hint)
    return opened_network(model)


def _clips(
    settings: EvaluationSettings,
    task: str,
    networks: Sequence[SpeechNetwork],
    window: float | None,
    note: Callable[[str], None],
) -> list[LabelledClip]:
    """The clips that every network can hear."""
    found = find_labelled([Path(path) for path in settings.data], _HOLDS[task], min_seconds=0.0)
    if found.unlabelled:
        got = f"{len(found.unlabelled)} clips, {found.unlabelled[0].path} first"
        raise DataError("audio without labels", where=", ".join(settings.data), got=got)
    own = [network.longest_seconds or math.inf for network in networks]
    longest = min(math.inf if window is None else window, *own)
    clips = [one for one in found.labelled if one.clip.duration_seconds <= longest]
    if left := len(found.labelled) - len(clips):
        note(f"{left} clips longer than {longest:g} s left out")
    total, taken = 0.0, []
    for one in clips:
        total += one.clip.duration_seconds / 60
        if taken and total > settings.max_minutes:
            note(f"{len(taken)} of {len(clips)} clips taken: --max-minutes {settings.max_minutes:g}")
            break
        taken.append(one)
    if not taken:
        raise DataError("no labelled clips that the models can hear", where=", ".join(settings.data))
    return taken


def _answers(network: SpeechNetwork, clips: Sequence[LabelledClip], device: torch.device) -> list[Answer]:
    """What a network says of each clip: alone, as padding would change that of some families, or in its window."""
    answers: list[Answer] = []
    at_once = _AT_ONCE if network.window_seconds else 1
    for first in range(0, len(clips), at_once):
        part = clips[first : first + at_once]
        inputs = network.inputs([piece(one.clip).read() for one in part])
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        seconds = max(one.clip.duration_seconds for one in part)
        answers += network.answers(network.model, inputs, seconds)
    return answers


_Found = list[tuple[str, float, dict[str, Any]]]


def _recognised(network: SpeechNetwork, clips: Sequence[LabelledClip], device: torch.device) -> _Found:
    from torchaudio.functional import edit_distance

    said = [normalised(one.label) for one in clips]
    heard = [normalised(network.decode(answer)) for answer in _answers(network, clips, device)]
    found: _Found = []
    for name, parts in (("asr", str.split), (_CHARACTERS, list)):
        pairs = [(parts(one), parts(other)) for one, other in zip(said, heard, strict=True)]
        counts = np.array([edit_distance(one, other) for one, other in pairs])
        lengths = np.array([len(one) for one, _ in pairs])
        if not lengths.sum():
            raise DataError("the transcripts say nothing", where=clips[0].where)
        errors = Errors(counts=counts, lengths=lengths)
        facts = {"interval": errors.interval(), "capped": errors.capped}
        found.append((name, errors.share, {**facts, "capped_interval": errors.interval(capped=True)}))
    return found


def _classified(network: SpeechNetwork, clips: Sequence[LabelledClip], device: torch.device) -> _Found:
    wanted = _encoded(network, clips)
    wrong = np.array([one != other for one, other in zip(wanted, _answers(network, clips, device), strict=True)])
    errors = Errors(counts=wrong.astype(int), lengths=np.ones(len(wrong), dtype=int))
    low, high = errors.interval()
    return [("classify", 1 - errors.share, {"interval": (1 - high, 1 - low)})]


def _framed(network: SpeechNetwork, clips: Sequence[LabelledClip], device: torch.device) -> _Found:
    counts, lengths = [], []
    for wanted, got in zip(_encoded(network, clips), _answers(network, clips, device), strict=True):
        # Labels and frames need not be of one length: each frame is told by the label in its middle.
        places = ((np.arange(len(got)) + 0.5) * len(wanted) / len(got)).astype(int)
        counts.append(int((np.array(wanted)[places] != np.array(got)).sum()))
        lengths.append(len(got))
    errors = Errors(counts=np.array(counts), lengths=np.array(lengths))
    return [("frames", errors.share, {"interval": errors.interval()})]


def _verified(network: SpeechNetwork, clips: Sequence[LabelledClip], device: torch.device) -> _Found:
    speakers = np.array([one.label for one in clips])
    vectors = []
    with torch.no_grad():
        for one in clips:
            inputs = {n: t.to(device) for n, t in network.inputs([piece(one.clip).read()]).items()}
            vector = network.hear(network.model, inputs).logits
            assert vector is not None
            vectors.append(F.normalize(vector.float(), dim=-1).cpu())
    near = (torch.cat(vectors) @ torch.cat(vectors).T).numpy()
    first, second = np.triu_indices(len(clips), 1)
    same = speakers[first] == speakers[second]
    if same.all() or not same.any():
        expected = "two clips of one speaker, and clips of two speakers"
        raise DataError("no pairs to verify", where=clips[0].where, expected=expected)
    scores = near[first, second]
    facts = {"pairs": len(same), "interval": equal_error_interval(scores, same, (first, second))}
    return [("x-vector", equal_error_rate(scores, same), facts)]


def _encoded(network: SpeechNetwork, clips: Sequence[LabelledClip]) -> list[Answer]:
    answers = []
    for one in clips:
        try:
            answers.append(network.encode(one.label))
        except DataError as error:
            raise DataError(error.what, where=one.where, got=error.got, expected=error.expected) from error
    return answers


_SCORERS: Mapping[str, Callable[[SpeechNetwork, Sequence[LabelledClip], torch.device], _Found]] = {
    "asr": _recognised,
    "classify": _classified,
    "frames": _framed,
    "x-vector": _verified,
}


def _describe(name: str, task: str, clips: Sequence[LabelledClip], settings: EvaluationSettings) -> dict[str, Any]:
    stated = HEAD_TASKS[task]
    counts = Counter(one.label for one in clips)
    chance = {"classify": max(counts.values()) / len(clips), "x-vector": 0.5}
    return {
        "metric": "character error rate" if name == _CHARACTERS else stated.metric,
        "higher_is_better": stated.higher_is_better,
        "chance": chance.get(task),
        "data": ", ".join(settings.data),
        "test_clips": len(clips),
        "minutes": sum(one.clip.duration_seconds for one in clips) / 60,
        **({"normalisation": NORMALISATION, "decoding": "greedy"} if task == "asr" else {}),
    }
