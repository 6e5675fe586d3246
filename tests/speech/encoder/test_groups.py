"""Hand-written groups against torch-pruning's dependency graph, which finds them by tracing."""

from collections.abc import Callable

import pytest
import torch
import torch_pruning
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.units import UNITS
from torch import nn

from l0prune import ConfigError, Role

Make = Callable[..., SpeechEncoder]


def owner(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def test_groups_are_those_that_tracing_finds(make_encoder: Make) -> None:
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
    assert len(groups) == 2 + 3 * 2
    for group in groups:
        ours = {(owner(place.tensor), place.role is Role.CONSUMES) for place in group.places}
        root = next(place.tensor for place in group.places if place.role is Role.PRODUCES)
        assert traced(encoder.get_submodule(owner(root))) == ours, group.name


def test_whole_blocks_own_every_parameter_of_theirs(make_encoder: Make) -> None:
    encoder = make_encoder()
    groups = {group.name: group for group in encoder_groups(encoder, ("attention", "feed_forward"))}
    assert len(groups) == 6
    for name, group in groups.items():
        owned = {place.tensor for place in group.places}
        assert owned == {f"{name}.{tensor}" for tensor, _ in encoder.get_submodule(name).named_parameters()}
        assert group.units == 1


def test_unknown_unit_is_refused_with_the_nearest_name(make_encoder: Make) -> None:
    assert len(UNITS) == 5
    with pytest.raises(ConfigError, match="did you mean 'head'"):
        encoder_groups(make_encoder(), ("heads",))
