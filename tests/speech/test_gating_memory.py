"""Gates act on weights: what autograd saves beyond the dense model does not grow with the audio."""

import pytest
import torch
from l0prune_speech.groups import encoder_groups
from l0prune_speech.modules import SpeechEncoder, build_encoder

from l0prune import GatedModel


def make_encoder() -> SpeechEncoder:
    torch.manual_seed(0)
    return build_encoder(
        {
            "extractor_mode": "group_norm",
            "extractor_conv_layer_config": [(16, 10, 5), (16, 3, 2), (16, 2, 2)],
            "extractor_conv_bias": False,
            "encoder_embed_dim": 32,
            "encoder_projection_dropout": 0.0,
            "encoder_pos_conv_kernel": 8,
            "encoder_pos_conv_groups": 4,
            "encoder_num_layers": 2,
            "encoder_num_heads": 4,
            "encoder_attention_dropout": 0.0,
            "encoder_ff_interm_features": 64,
            "encoder_ff_interm_dropout": 0.0,
            "encoder_dropout": 0.0,
            "encoder_layer_norm_first": False,
            "encoder_layer_drop": 0.0,
            "aux_num_out": None,
        }
    )


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
def test_surplus_does_not_grow_with_the_audio(units: tuple[str, ...]) -> None:
    dense, student = make_encoder(), make_encoder()
    gated = GatedModel(student, encoder_groups(student, units), target_sparsity=0.5).train()
    gated.gates.sample()
    surplus = []
    for samples in (4_000, 16_000):
        surplus.append(saved_bytes(student, samples) - saved_bytes(dense, samples))
    assert surplus[0] == surplus[1]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in dense.parameters())
    assert 0 < surplus[0] < weights
