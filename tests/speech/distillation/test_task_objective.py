"""Layers, logits and the task's own loss: what each is, and that the teacher speaks once of a batch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_speech.data import PieceBatch
from l0prune_speech.distillation import PUBLISHED, TaskDistillation, TaskWeights
from l0prune_speech.distillation.task_objective import state_distance
from l0prune_speech.families import SpeechNetwork, open_network
from tiny_networks import save_network
from torch import nn


@pytest.fixture
def network(tmp_path: Path) -> SpeechNetwork:
    return open_network(str(save_network("wav2vec2-layered", tmp_path)))


def batch_of(network: SpeechNetwork, answers: Any = ((5, 6), (7,)), name: str = "train 0 of 1") -> PieceBatch:
    clips = [0.1 * torch.randn(8_000), 0.1 * torch.randn(6_000)]
    return PieceBatch(
        name=name, inputs=network.inputs(clips), answers=answers, seconds=0.875, longest_seconds=0.5, size=2
    )


def objective(network: SpeechNetwork, student: nn.Module, most_bytes: int = 10**8, **weights: float) -> Any:
    return TaskDistillation(
        student,
        network,
        layers=(1, 2),
        weights=TaskWeights(**weights),
        distances=PUBLISHED,
        most_bytes=most_bytes,
    )


def changed(network: SpeechNetwork) -> nn.Module:
    student = copy.deepcopy(network.model)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    return student


def test_a_copy_is_at_no_distance_and_parts_add_up(network: SpeechNetwork) -> None:
    batch = batch_of(network)
    same = objective(network, copy.deepcopy(network.model), logits=1.0)(batch).parts
    assert [same[name].item() for name in ("layer 1", "layer 2", "logits")] == pytest.approx([0, 0, 0], abs=1e-6)
    losses = objective(network, changed(network), layers=2.0, logits=3.0, task=0.5)(batch)
    parts = losses.parts
    expected = (parts["layer 1"] + parts["layer 2"]) + 3 * parts["logits"] + 0.5 * parts["task"]
    torch.testing.assert_close(losses.total, expected)
    assert losses.amount == 0.875
    assert all(float(part.detach()) > 0 for part in parts.values())


def test_logits_are_compared_as_by_the_definition(network: SpeechNetwork) -> None:
    batch, student = batch_of(network), changed(network)
    with torch.no_grad():
        found = objective(network, student, logits=1.0, temperature=3.0)(batch).parts["logits"]
        ours, theirs = (network.hear(model, batch.inputs) for model in (student, network.model))
        assert ours.logits is not None
        assert theirs.logits is not None
        valid = ours.frames
        p, q = (one.logits[valid].div(3).softmax(-1) for one in (theirs, ours))  # type: ignore[union-attr]
    torch.testing.assert_close(found, 9 * (p * (p / q).log()).sum(-1).mean())


def test_the_loss_of_a_task_is_that_of_the_class(network: SpeechNetwork) -> None:
    batch = batch_of(network)
    labels = torch.tensor([[5, 6], [7, -100]])
    network.model.config.ctc_loss_reduction = "sum"  # type: ignore[union-attr]
    with torch.no_grad():
        theirs = network.model(**batch.inputs, labels=labels).loss
        ours = objective(network, network.model)(batch).parts["task"]
    torch.testing.assert_close(ours, theirs / 3)


def test_padding_is_not_looked_at() -> None:
    student, teacher = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    frames = torch.arange(6) < torch.tensor([[6], [3]])
    weights = {"l1": 1.0, "l2": 1.0, "cosine": 1.0, "gram": 1.0}
    whole = state_distance(student, teacher, frames, weights)
    student[1, 3:], teacher[1, 3:] = 1e6, -1e6
    assert state_distance(student, teacher, frames, weights) == whole
    # Half as many frames, of the same time: 3 and 2.
    half = state_distance(student[:, :3], teacher[:, :3], frames, weights)
    student[1, 2], teacher[1, 2] = 1e6, -1e6
    assert state_distance(student[:, :3], teacher[:, :3], frames, weights) == half


@pytest.mark.parametrize("room", [10**8, 0])
def test_the_teacher_speaks_once_of_a_batch_that_comes_again(network: SpeechNetwork, room: int) -> None:
    runs = []
    trained = objective(network, changed(network), most_bytes=room, logits=1.0)
    hook = network.model.register_forward_hook(lambda *_: runs.append(1))
    without = batch_of(network, answers=None)
    first = trained(without)
    # Once for what it answers, as there are no labels, and once for its states.
    assert len(runs) == 2
    again = trained(without)
    assert len(runs) == (2 if room else 4)
    assert first.total == again.total
    hook.remove()


def test_a_network_without_labels_learns_what_the_teacher_says(network: SpeechNetwork) -> None:
    without = batch_of(network, answers=None)
    said = tuple(network.answers(network.model, without.inputs, 0.5))
    told = PieceBatch(**{**vars(without), "answers": said, "name": "other"})
    student = changed(network)
    assert objective(network, student)(without).total == objective(network, student)(told).total
