"""Methods that make the encoder small at once: by a score of the method's own groups, and their exact budget."""

from collections.abc import Callable, Mapping

import numpy as np
from torch import nn

from l0bench.one_shot_scores import by_activation, by_chance, by_magnitude, by_taylor
from l0bench.recognition.problem import Problem
from l0prune import apply_plan
from l0prune.removal import make_plan
from l0prune.size import kept_indices, select
from l0prune.support import model_shapes

_DROPOUT = 0.1
Score = Callable[[Problem], np.ndarray]


def cut_by(score: Score, problem: Problem) -> nn.Module:
    """Keep the units of the highest scores (N,) that fit, by the project's own selection and removal."""
    encoder, groups = problem.encoder(), problem.groups
    kept = select(score(problem), groups, problem.inspection.parameter_model, problem.budget)
    return apply_plan(encoder, make_plan(groups, kept_indices(kept, groups), model_shapes(encoder)))


def _taylor_task(problem: Problem) -> np.ndarray:
    return by_taylor(problem.encoder().train(), problem.groups, problem.labelled_losses("task"))


def _taylor_distill(problem: Problem) -> np.ndarray:
    """A copy of the dense encoder has no distance from it, and no gradient; with dropout it has."""
    encoder = problem.encoder().train()
    for module in encoder.modules():
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, _DROPOUT)
    kind = "all" if problem.trial.objective == "all" else "last"
    return by_taylor(encoder, problem.groups, problem.labelled_losses(kind))


def _random(problem: Problem) -> np.ndarray:
    return by_chance(problem.groups, problem.trial.seed)


def _magnitude(problem: Problem) -> np.ndarray:
    return by_magnitude(problem.encoder(), problem.groups)


def _activation(problem: Problem) -> np.ndarray:
    labelled = problem.sets.labelled
    runs = (lambda encoder, c=c: encoder(labelled.features(c)) for c in labelled.in_turn(8))
    return by_activation(problem.encoder().eval(), problem.groups, runs)


SCORES: Mapping[str, Score] = {
    "taylor-task": _taylor_task,
    "taylor-distill": _taylor_distill,
    "random": _random,
    "magnitude": _magnitude,
    "activation": _activation,
}
