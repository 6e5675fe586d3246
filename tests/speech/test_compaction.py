"""Encoders of every layout shrink in training without a change in their outputs."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from l0prune_speech.distillation.objective import Distillation
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.units import UNITS

from l0prune import GatedModel, relative_difference
from l0prune.config import CompactionConfig, ControllerConfig
from l0prune.gates.controller import Controller
from l0prune.measuring.count import parameters

Make = Callable[..., SpeechEncoder]
LAYOUTS = {
    "base": {},
    "large": {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True},
    "wavlm": {"encoder_num_buckets": 8, "encoder_max_distance": 20},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), target=st.floats(0.2, 0.8), every=st.booleans())
def test_outputs_are_those_of_before(layout: str, make_encoder: Make, seed: int, target: float, every: bool) -> None:
    encoder = make_encoder(seed, **LAYOUTS[layout]).eval()
    units = UNITS if every else ("conv", "head", "ffn")
    gated = GatedModel(encoder, encoder_groups(encoder, units), target_sparsity=target).eval()
    with torch.no_grad():
        noise = torch.randn(len(gated.here), generator=torch.Generator().manual_seed(seed))
        gated.gates.log_alpha.copy_(3 + 5 * noise)
    optimizer = torch.optim.AdamW([{"params": [*encoder.parameters()]}, {"params": [gated.gates.log_alpha]}])
    config = CompactionConfig(patience=1, closed_below=0.6, least_share=0.0)
    controller = Controller(gated, ControllerConfig(), compaction=config)
    compactor = controller.compactor
    assert compactor is not None
    waveforms, lengths = torch.randn(2, 900), torch.tensor([900, 500])
    with torch.no_grad():
        before, plan, size = encoder.hidden_states(waveforms, None, lengths), gated.plan(), parameters(encoder)
        compactor.reached.fill_(1)
        kept = compactor.look(target)
        if kept is None:
            return
        controller.cut(kept, [optimizer])
        assert parameters(encoder) < size
        assert parameters(encoder) == gated.parameter_model.exact(gated.parameter_model.units)
        assert relative_difference(before, encoder.hidden_states(waveforms, None, lengths)) < 1e-5
    assert gated.plan().kept == plan.kept
    # And it trains on.
    encoder.train()
    gated.gates.sample()
    torch.stack([state.square().mean() for state in encoder.hidden_states(waveforms)]).mean().backward()
    optimizer.step()


def test_activation_checkpointing_changes_no_gradient(make_encoder: Make) -> None:
    found = []
    for switched in (False, True):
        student, teacher = make_encoder(0), make_encoder(1)
        gated = GatedModel(student, encoder_groups(student), target_sparsity=0.5)
        student.encoder.transformer.activation_checkpointing = switched  # type: ignore[union-attr, assignment]
        objective = Distillation(student, teacher, layers=(0, 3)).train()
        torch.manual_seed(0)
        gated.gates.sample()
        objective(torch.ones(2, 900).cumsum(1).sin()).total.backward()
        found.append([p.grad for p in [*student.parameters(), gated.gates.log_alpha] if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 20
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
