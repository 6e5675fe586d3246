"""One trial from beginning to end, as a row of results."""

import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from l0bench.real_material.whisper_tiny import whisper_tiny
from l0bench.recognition import gated, one_shot, torch_pruning_beginning
from l0bench.recognition.evaluation import evaluate
from l0bench.recognition.problem import Problem, Sets, open_sets
from l0bench.recognition.recogniser import Recogniser
from l0bench.recognition.training import train
from l0bench.recognition.trial import Trial
from l0bench.students.low_rank import factored
from l0prune import L0PruneError
from l0prune.measuring import parameters, processor
from l0prune.support import versions

Begin = Callable[[Problem], nn.Module]


def low_rank(problem: Problem) -> nn.Module:
    """Every matrix as a product of two, by truncated singular values; trained in that form, and counted in it."""
    return factored(problem.encoder(), problem.budget)


BEGINNINGS: Mapping[str, Begin] = {
    **{name: partial(one_shot.cut_by, score) for name, score in one_shot.SCORES.items()},
    "torch-pruning-taylor": torch_pruning_beginning.by_group_taylor,
    "torch-pruning-magnitude": torch_pruning_beginning.by_group_magnitude,
    "low-rank": low_rank,
}
"""What makes the encoder small at once."""
METHODS = ("wrap", *BEGINNINGS)


@cache
def _opened(material: Path) -> tuple[Recogniser, Sets]:
    recogniser = Recogniser.open(whisper_tiny(material))
    return recogniser, open_sets(material, recogniser)


def prepare(material: Path) -> None:
    """Bring what is not there, before processes would do so side by side."""
    _opened(material.absolute())


def run(trial: Trial, material: Path) -> dict[str, Any]:
    """Prune, train, score.

    Returns:
        The trial's fields and its figures; `failed` in their place where an error of the library's ended it.
    """
    began = time.perf_counter()
    problem = Problem(*_opened(material.absolute()), trial)
    try:
        figures: dict[str, Any] = run_on(problem)
    except L0PruneError as error:
        figures = {"failed": str(error)}
    figures["seconds_in_all"] = round(time.perf_counter() - began, 1)
    place = {
        "processor": processor(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": versions("torchaudio"),
    }
    return trial.row() | figures | place


def run_on(problem: Problem) -> dict[str, Any]:
    """The figures of a trial."""
    trial = problem.trial
    # The copies' and the gates' draws.
    torch.manual_seed(trial.seed)
    began, worked = time.perf_counter(), time.process_time()
    encoder, facts = _made(problem)
    facts["seconds"] = round(time.perf_counter() - began, 1)
    # What a method costs, also where other processes take the cores.
    facts["processor_seconds"] = round(time.process_time() - worked, 1)
    facts["parameters"] = parameters(encoder)
    if trial.method != "dense":
        facts["budget"] = problem.budget
    facts["validation_nats"] = problem.validation_nats(encoder)
    return facts if trial.trial else facts | evaluate(encoder, problem.sets.test, problem.recogniser)


def _made(problem: Problem) -> tuple[nn.Module, dict[str, Any]]:
    if problem.trial.method == "dense":
        return problem.encoder(), {}
    if problem.trial.method == "wrap":
        return gated.learn(problem)
    encoder = BEGINNINGS[problem.trial.method](problem)
    dense = problem.mean_loss(problem.encoder().eval())
    facts: dict[str, Any] = {"loss_before_cut": dense, "loss_after_cut": problem.mean_loss(encoder.eval())}
    facts["nats_after_cut"] = problem.validation_nats(encoder)
    return encoder, facts | {"loss_trained": train(encoder, problem)}
