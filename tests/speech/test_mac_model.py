"""Multiply-accumulates of a speech encoder as a polynomial of its hand-written groups, emptied blocks among them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.units import UNITS
from torch import nn

from l0prune import GatedModel, mac_size
from l0prune.discovery.follow import trace
from l0prune.measuring.count import macs


def observe(encoder: nn.Module) -> list[torch.Tensor]:
    return encoder.extract_features(torch.ones(1, 1600))[0]


@pytest.mark.parametrize(
    "family", [{}, {"encoder_num_buckets": 16, "encoder_max_distance": 30}], ids=["hubert", "wavlm"]
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31))
def test_they_are_counted_exactly_for_every_plan(
    make_encoder: Callable[..., SpeechEncoder], family: dict[str, int], seed: int
) -> None:
    encoder, random = make_encoder(**family), np.random.default_rng(seed)
    groups = encoder_groups(encoder, UNITS)
    size = mac_size(encoder, groups, trace(encoder, observe, training=False))
    assert size.total == macs(lambda: observe(encoder))
    gated = GatedModel(encoder, groups, target_sparsity=1e-9).eval()
    values = []
    for group in groups:
        gates = np.ones(group.units)
        gates[random.permutation(group.units)[: random.integers(0, group.units - group.least_units + 1)]] = 0
        values.append(gates)
    with gated.gates.fixed(torch.from_numpy(np.concatenate(values))):
        pruned, plan = gated.pruned()
    kept = np.array(list(plan.kept_counts.values()))
    assert size.exact(kept) == macs(lambda: observe(pruned))
