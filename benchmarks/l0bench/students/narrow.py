"""Students of another shape than the teacher: its first layers, or all of them with narrower widths.

Legend: D residual width, F feed-forward width, H heads.
"""

import math
from collections.abc import Sequence

import numpy as np
from l0prune_speech.encoder import SpeechEncoder, build_encoder, encoder_groups

from l0bench.students.beginnings import Beginning, dense_config, objective_of, size_of, student_of
from l0bench.students.one_shot import magnitudes
from l0prune import PruneGroup, RemovalPlan, RunConfig, SizeModel, TargetError, Task, apply_plan, parameter_size
from l0prune.support import model_shapes

_LEAST_LAYERS = 2
_HALVINGS = 40
"""Of an interval of shares: more than any width can tell apart."""


def first_layers(task: Task, _config: RunConfig, budget: int) -> Beginning:
    """The teacher's convolutions and first two layers, which predict its layers from their last state.

    Where they are less than the budget, as many layers as reach it. Where they are more, every width but the residual
    one shrinks by the same share; of each, the units of the largest weights stay.

    Source: DistilHuBERT (arXiv 2110.01900).
    """
    teacher, whole = student_of(task), dense_config(task)
    depths = range(_LEAST_LAYERS, whole["encoder_num_layers"] + 1)
    configs = [{**whole, "encoder_num_layers": depth} for depth in depths]
    short = build_encoder(next(config for config in configs if size_of(config) >= budget))
    tensors = teacher.state_dict()
    short.load_state_dict({name: tensors[name] for name in short.state_dict()})
    # It predicts layers, not what the convolutions give.
    layers = tuple(layer for layer in objective_of(task).layers if layer)
    return Beginning(student=narrowed(short, budget), mode="prediction", layers=layers)


def narrowed(encoder: SpeechEncoder, budget: int) -> SpeechEncoder:
    """Cut an encoder to a budget, every width but the residual one by the same share.

    Raises:
        TargetError: What is not cut is more than the budget.
    """
    groups = encoder_groups(encoder)
    size = parameter_size(encoder, groups)
    if size.total <= budget:
        return encoder
    counts = _uniform(groups, size, budget)
    scores = np.split(magnitudes(encoder, groups), np.cumsum([group.units for group in groups])[:-1])
    kept = {
        group.name: tuple(sorted(np.argsort(-own, kind="stable")[:count].tolist()))
        for group, own, count in zip(groups, scores, counts, strict=True)
    }
    plan = RemovalPlan(groups=tuple(groups), kept=kept, shapes=model_shapes(encoder))
    narrow = apply_plan(encoder, plan)
    assert isinstance(narrow, SpeechEncoder)
    return narrow


def _uniform(groups: Sequence[PruneGroup], size: SizeModel, budget: int) -> np.ndarray:
    """How many units of each group stay: one share of all, then feed-forward units one by one while they fit."""
    units = np.array([group.units for group in groups], dtype=np.int64)

    def at(share: float) -> np.ndarray:
        return np.maximum(1, np.rint(share * units)).astype(np.int64)

    low, high = 0.0, 1.0
    if size.exact(at(low)) > budget:
        raise TargetError("no width meets the budget", got=f"{size.exact(at(low)):,}", expected=f"{budget:,} or less")
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if size.exact(at(middle)) <= budget else (low, middle)
    counts = at(low)
    # Heads are few and large: what is left of the budget is more than a finer share could use.
    growing = [number for number, group in enumerate(groups) if group.kind == "ffn"]
    while growing:
        for number in list(growing):
            counts[number] += 1
            if counts[number] > units[number] or size.exact(counts) > budget:
                counts[number] -= 1
                growing.remove(number)
    return counts


def thin(task: Task, config: RunConfig, budget: int) -> Beginning:
    """As many layers as the teacher has, random weights, all widths smaller by about the same share.

    The residual width moves in steps (heads and groups of the positional convolution must divide it). For each step the
    feed-forward width follows from the budget; the step at which F / D is nearest to the teacher's is taken.

    Source: FitHuBERT (arXiv 2207.00555).

    Raises:
        TargetError: No width meets the budget.
    """
    whole = dense_config(task)
    widest, units = whole["encoder_embed_dim"], whole["encoder_ff_interm_features"]
    step = math.lcm(whole["encoder_num_heads"], whole["encoder_pos_conv_groups"])
    found = {}
    for width in range(step, widest + 1, step):
        share = width / widest
        narrow = {
            **whole,
            "encoder_embed_dim": width,
            "extractor_conv_layer_config": [
                (max(1, round(share * channels)), *shape) for channels, *shape in whole["extractor_conv_layer_config"]
            ],
        }
        one, two = (size_of({**narrow, "encoder_ff_interm_features": units}) for units in (1, 2))
        fitting = 1 + (budget - one) // (two - one)
        if fitting >= 1:
            bent = abs(math.log((fitting / width) / (units / widest)))
            found[bent] = {**narrow, "encoder_ff_interm_features": fitting}
    if not found:
        raise TargetError("no width meets the budget", expected=f"{budget:,} or less", hint="lower the target")
    return Beginning(student=build_encoder(found[min(found)]))
