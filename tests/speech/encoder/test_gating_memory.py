"""Gates act on weights: what autograd saves beyond the dense model does not grow with the audio."""

from collections.abc import Callable

import pytest
import torch
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder

from l0prune import GatedModel

Make = Callable[..., SpeechEncoder]


def saved_bytes(encoder: SpeechEncoder, samples: int) -> int:
    """Bytes autograd keeps for the backward pass, each storage once."""
    storages: dict[int, int] = {}
    held: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)  # Keeps the storage, so that its address stays its own.
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        encoder.hidden_states(torch.randn(2, samples))
    return sum(storages.values())


@pytest.mark.parametrize("units", [("head", "ffn", "attention", "feed_forward"), ("conv", "head", "ffn")])
def test_surplus_does_not_grow_with_the_audio(make_encoder: Make, units: tuple[str, ...]) -> None:
    # Layers skipped at random, and attention kernels that differ with the length, would blur the comparison.
    plain = {"encoder_layer_drop": 0.0, "encoder_attention_dropout": 0.0}
    dense, student = make_encoder(**plain).train(), make_encoder(**plain)
    gated = GatedModel(student, encoder_groups(student, units), target_sparsity=0.5).train()
    gated.gates.sample()
    surplus = []
    for samples in (4_000, 16_000):
        surplus.append(saved_bytes(student, samples) - saved_bytes(dense, samples))
    assert surplus[0] == surplus[1]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in dense.parameters())
    assert 0 < surplus[0] < weights
