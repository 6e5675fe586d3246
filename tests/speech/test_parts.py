"""Parts of a speech encoder in a report: they add up to the counted network, blocks that were emptied among them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.units import UNITS

import l0prune
from l0prune.measuring.count import macs, parameters
from l0prune.report.parts import network_parts
from l0prune.storage import read_description


@pytest.mark.parametrize(
    "family", [{}, {"encoder_num_buckets": 16, "encoder_max_distance": 30}], ids=["hubert", "wavlm"]
)
def test_they_add_up(
    make_encoder: Callable[..., SpeechEncoder],
    encoder_config: Mapping[str, Any],
    family: dict[str, int],
    tmp_path: Path,
) -> None:
    encoder = make_encoder(**family)
    groups = encoder_groups(encoder, UNITS)
    gated = l0prune.GatedModel(encoder, groups, target_sparsity=0.5).eval()
    gates = [np.r_[np.zeros(group.units - 1), 1] if group.units > 1 else np.zeros(1) for group in groups]
    with gated.gates.fixed(torch.from_numpy(np.concatenate(gates))):
        pruned, plan = gated.pruned()
    l0prune.save(pruned, plan, tmp_path, plugin="speech", architecture={**encoder_config, **family})
    parts = network_parts(read_description(tmp_path), tmp_path)
    assert parts.note == ""
    clip = torch.zeros(1, 160_000, device="meta")
    for moment, network in (("before", make_encoder(**family)), ("after", pruned)):
        network = network.to("meta")
        assert sum(getattr(part, f"params_{moment}") for part in parts.rows) == parameters(network)
        counted = sum(getattr(part, f"macs_{moment}") for part in parts.rows)
        assert counted == pytest.approx(macs(lambda network=network: network(clip)) / 10, abs=len(parts.rows))
    alike = {part.name: part for part in parts.by_pattern()}
    attention = alike["encoder.transformer.layers.*.attention"]
    assert attention.count == 3
    assert attention.params_after == attention.macs_after == 0
    # Whole blocks can go, what stands between them cannot.
    assert attention.params_least == alike["encoder.transformer.layers.*.feed_forward"].params_least == 0
    assert sum(part.params_least for part in parts.rows) == gated.parameter_model.floor
    assert parts.macs_per == "second of audio, in an input of 10 s"
