"""HuBERT Base with random weights, and students of it, for the benchmarks of time."""

import numpy as np
import torch
import torchaudio
from l0prune_speech.encoder import SpeechEncoder

from l0prune import GatedModel, PruneGroup, SizeModel
from l0prune.size import budget_for, select

SECONDS = 10
"""Of audio."""
BASE = {**torchaudio.pipelines.HUBERT_BASE._params, "normalize_waveform": False}


def unit_costs(size: SizeModel, groups: list[PruneGroup]) -> np.ndarray:
    """What a unit costs in the dense network: (N,), the same for the units of a group."""
    one = np.eye(len(groups), dtype=np.int64)
    by_group = [size.exact(size.units) - size.exact(size.units - row) for row in one]
    return np.repeat(np.array(by_group, dtype=float), size.units)


def make_student(
    dense: SpeechEncoder,
    groups: list[PruneGroup],
    parameters: SizeModel,
    costs: np.ndarray,
    sparsity: float,
    round_to: int = 1,
) -> SpeechEncoder:
    """A student with a share of the parameters removed, where units that cost much for their size go first."""
    relative = costs / unit_costs(parameters, groups)
    importance = np.random.default_rng(0).exponential(size=len(costs))
    worth = importance / (relative / relative.mean())
    keep = 1 - np.exp(-worth / worth.mean())
    kept = select(keep, groups, parameters, budget_for(parameters, sparsity), round_to=round_to)
    gated = GatedModel(dense, groups, target_sparsity=1e-9).eval()
    with gated.gates.fixed(torch.from_numpy(kept.astype(np.float32))):
        student, _ = gated.pruned()
    gated.detach()
    assert isinstance(student, SpeechEncoder)
    return student
