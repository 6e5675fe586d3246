"""Hand-written groups against torch-pruning's dependency graph, which finds them by tracing."""

import pytest
import torch
import torch_pruning
from l0prune_speech.groups import UNITS, encoder_groups
from l0prune_speech.modules import SpeechEncoder, build_encoder
from torch import nn

from l0prune import ConfigError, Role


def make_encoder() -> SpeechEncoder:
    torch.manual_seed(0)
    config = {
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
    return build_encoder(config).eval()


def owner(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def test_groups_are_those_that_tracing_finds() -> None:
    encoder = make_encoder()
    names = {module: name for name, module in encoder.named_modules()}
    graph = torch_pruning.DependencyGraph().build_dependency(
        encoder, example_inputs=torch.randn(1, 1600), output_transform=lambda outputs: outputs[0].sum()
    )

    def traced(root: nn.Module) -> set[tuple[str, bool]]:
        """Modules that lose channels with those of `root`, and whether on their input side."""
        conv = isinstance(root, nn.Conv1d)
        cut = torch_pruning.prune_conv_out_channels if conv else torch_pruning.prune_linear_out_channels
        group = graph.get_pruning_group(root, cut, idxs=[0, 1, 2, 3])
        return {
            (names[dependency.target.module], reads(dependency.target.module, dependency.handler))
            for dependency, _ in group
            if dependency.target.module in names
        }

    def reads(module: nn.Module, handler: object) -> bool:
        # A norm has one set of channels: which side of it the graph names means nothing.
        return not isinstance(module, nn.LayerNorm | nn.GroupNorm) and graph.is_in_channel_pruning_fn(handler)

    groups = encoder_groups(encoder)
    assert len(groups) == 3 + 2 * 2
    for group in groups:
        ours = {(owner(place.tensor), place.role is Role.CONSUMES) for place in group.places}
        root = next(place.tensor for place in group.places if place.role is Role.PRODUCES)
        assert traced(encoder.get_submodule(owner(root))) == ours, group.name


def test_whole_blocks_own_every_parameter_of_theirs() -> None:
    encoder = make_encoder()
    groups = {group.name: group for group in encoder_groups(encoder, ("attention", "feed_forward"))}
    assert len(groups) == 4
    for name, group in groups.items():
        owned = {place.tensor for place in group.places}
        assert owned == {f"{name}.{tensor}" for tensor, _ in encoder.get_submodule(name).named_parameters()}
        assert group.units == 1


def test_unknown_unit_is_refused_with_the_nearest_name() -> None:
    assert len(UNITS) == 5
    with pytest.raises(ConfigError, match="did you mean 'head'"):
        encoder_groups(make_encoder(), ("heads",))
