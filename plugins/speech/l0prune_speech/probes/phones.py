"""The probe of every frame: phone recognition with CTC. Legend: N frames of several clips, S hidden states, D width."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from l0prune import DataError
from l0prune_speech.data import Framing
from l0prune_speech.probes.features import Features
from l0prune_speech.probes.fitting import Outcome, Scale, Schedule, Trial, fit, seeded, training_labels
from l0prune_speech.probes.heads import FrameProbe
from l0prune_speech.probes.labelled import Label, LabelledSet, numbered
from l0prune_speech.probes.metrics import error_rate

# Chosen by the embedded teacher on held-out training clips: fewer steps, and weights that decay more or less, err more.
_SCHEDULE = Schedule(steps=1500, batch=16, weight_decay=0.05, largest_gradient=1.0)
_BLANK = 0


def recognise(features: Features, labelled: LabelledSet, trial: Trial) -> Outcome:
    """Phone error rate of a linear layer on every frame of the weighted sum, trained with CTC, read off greedily."""
    train, test = _scaled_frames(features, labelled)
    phones = numbered(phone for example in labelled.train for phone in example.label)
    wanted = [torch.tensor([1 + phones[phone] for phone in label]) for label in training_labels(labelled.train, trial)]
    net = seeded(lambda: FrameProbe(train[0].shape[0], train[0].shape[2], len(phones)), trial)

    def scores(clips: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Clips (S, T, D) -> log-probabilities (T, 1 + phones) of each."""
        frames = torch.cat(list(clips), dim=1).to(trial.device).float()
        return net(frames).log_softmax(-1).split([clip.shape[1] for clip in clips])

    def loss(chosen: list[int]) -> Tensor:
        given = scores([train[number] for number in chosen])
        labels = [wanted[number] for number in chosen]
        sizes = ([len(clip) for clip in given], [len(label) for label in labels])
        lengths = (torch.tensor(size) for size in sizes)
        padded = nn.utils.rnn.pad_sequence(list(given))
        # Shuffled labels may need more frames than their clip has.
        return nn.functional.ctc_loss(padded, torch.cat(labels), *lengths, blank=_BLANK, zero_infinity=True)

    fit(net, loss, len(train), _SCHEDULE, trial)
    names = {1 + number: phone for phone, number in phones.items()}
    with torch.no_grad():
        found = [_read_off(scores([clip])[0], names) for clip in test]
    score = error_rate(found, [example.label for example in labelled.test])
    return Outcome(score=score, layer_weights=tuple(net.weights.tolist()))


def check(labelled: LabelledSet) -> None:
    """Raise a `DataError` where nothing is said, or there is nothing beside a clip that is held out."""
    if len(labelled.train) < 2:
        raise DataError("a single clip to train on", where=labelled.name, expected="2 or more")
    for example in (*labelled.train, *labelled.test):
        if not example.label:
            raise DataError("transcript is empty", where=example.segment.name)
    trained, tested = ({phone for one in split for phone in one.label} for split in (labelled.train, labelled.test))
    if not trained & tested:
        got, expected = f"{min(tested)} among others", f"{min(trained)} among others"
        raise DataError("no phone is both trained on and tested", where=labelled.name, got=got, expected=expected)


def check_frames(labelled: LabelledSet, framing: Framing) -> None:
    """Raise a `DataError` where a clip has too few frames for CTC: a frame a phone, and one between equal phones."""
    for example in (*labelled.train, *labelled.test):
        frames, needed = framing.frames(example.segment.samples), _frames_needed(example.label)
        if frames < needed:
            raise DataError(
                "too few frames for the phones",
                where=example.segment.name,
                got=f"{frames} frames, {framing.per_second:g} a second",
                expected=f"{needed} or more",
                hint="phone recognition needs a model of about 50 frames a second, or labels that match the audio",
            )


def _scaled_frames(features: Features, labelled: LabelledSet) -> tuple[list[Tensor], list[Tensor]]:
    """Frames of the training and the test clips, (S, T, D) each, standardised by the former."""
    train, test = (
        [features.frames[example.segment.name] for example in split] for split in (labelled.train, labelled.test)
    )
    scale = Scale.of_channels(torch.cat(train, dim=1).float())
    scaled = ([scale(clip.float()).to(clip.dtype) for clip in split] for split in (train, test))
    return next(scaled), next(scaled)


def _frames_needed(label: Label) -> int:
    return len(label) + sum(one == other for one, other in pairwise(label))


def _read_off(scores: Tensor, names: dict[int, str]) -> list[str]:
    """The best symbol of every frame (T, symbols), repetitions and blanks left out."""
    return [names[symbol] for symbol in scores.argmax(-1).unique_consecutive().tolist() if symbol != _BLANK]
