"""DPHuBERT's and DiariZen's checkpoints: what the published classes hold, and the way back."""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats.checkpoint import from_encoder, to_encoder
from l0prune_speech.formats.diarizen import to_diarizen
from l0prune_speech.formats.dphubert import from_dphubert, to_dphubert
from l0prune_speech.formats.pickled import read_pickled
from torch import Tensor

from l0prune import DataError

Make = Callable[..., SpeechEncoder]
States = Callable[[SpeechEncoder], list[Tensor]]
Shapes = Callable[..., dict[str, tuple[int, ...]]]
WAYS = {"dphubert": to_dphubert, "diarizen": to_diarizen}


ARGUMENTS = """
extractor_mode extractor_conv_layer_config extractor_conv_bias encoder_embed_dim encoder_projection_dropout
encoder_pos_conv_kernel encoder_pos_conv_groups encoder_num_layers encoder_use_attention encoder_use_feed_forward
encoder_attention_dropout encoder_ff_interm_features encoder_ff_interm_dropout encoder_dropout encoder_layer_norm_first
encoder_layer_drop aux_num_out normalize_waveform extractor_prune_conv_channels encoder_prune_attention_heads
encoder_prune_attention_layer encoder_prune_feed_forward_intermediate encoder_prune_feed_forward_layer
""".split()
HEADS = ["encoder_num_heads", "encoder_head_dim"]
WAVLM_HEADS = ["encoder_total_num_heads", "encoder_remaining_heads", "encoder_num_buckets", "encoder_max_distance"]
"""Arguments of the published `wav2vec2_model_original` and `wavlm_model`, which take no others."""
NAMES = {
    "dphubert": ("weight_g", "weight_v"),
    "diarizen": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
}


@pytest.mark.parametrize("emptied", [(), ("1.attention", "0.feed_forward")], ids=["full", "emptied"])
@pytest.mark.parametrize("to", list(WAYS))
def test_a_student_is_what_the_published_class_holds_and_comes_back_the_same(
    make_student: Make,
    states: States,
    tmp_path: Path,
    published_shapes: Shapes,
    kind: str,
    to: str,
    emptied: tuple[str, ...],
) -> None:
    student, path = make_student(kind, emptied), tmp_path / "student"
    assert WAYS[to](from_encoder(student), path) == []
    content = torch.load(path, weights_only=True)
    shapes = published_shapes(content["config"], weight_norm=NAMES[to])
    assert {name: tuple(tensor.shape) for name, tensor in content["state_dict"].items()} == shapes
    relative = kind.startswith("wavlm")
    layerwise = ["use_layerwise_prune"] if to == "diarizen" else []
    assert sorted(content["config"]) == sorted([*ARGUMENTS, *(WAVLM_HEADS if relative else HEADS), *layerwise])
    channels = content["config"]["extractor_conv_layer_config"][-1][0]
    assert sum(map(prod, shapes.values())) == sum(p.numel() for p in student.parameters()) + channels
    back = to_encoder(from_dphubert(content, path), path)
    assert all(torch.equal(one, other) for one, other in zip(states(student), states(back), strict=True))


@pytest.mark.parametrize("to", list(WAYS))
def test_a_dense_teacher_comes_back_the_same(
    make_dense: Make, states: States, tmp_path: Path, kind: str, to: str
) -> None:
    teacher, path = make_dense(kind), tmp_path / "teacher"
    WAYS[to](from_encoder(teacher), path)
    back = to_encoder(from_dphubert(read_pickled(path), path), path)
    assert all(torch.equal(one, other) for one, other in zip(states(teacher), states(back), strict=True))
    config = from_encoder(back).config
    assert config["encoder_num_heads"] == 4
    assert "encoder_remaining_heads" not in config


@pytest.mark.parametrize("size", ["base", "large"])
def test_a_first_wavlm_layer_without_attention_gets_a_silent_head(
    make_student: Make, states: States, tmp_path: Path, published_shapes: Shapes, size: str
) -> None:
    student, path = make_student(f"wavlm-{size}", ("0.attention",)), tmp_path / "student"
    (note,) = to_dphubert(from_encoder(student), path)
    assert "adds nothing" in note
    content = torch.load(path, weights_only=True)
    shapes = published_shapes(content["config"], weight_norm=NAMES["dphubert"])
    assert {name: tuple(tensor.shape) for name, tensor in content["state_dict"].items()} == shapes
    back = to_encoder(from_dphubert(content, path), path)
    assert all(torch.equal(one, other) for one, other in zip(states(student), states(back), strict=True))


def test_heads_of_a_student_pruned_again_keep_their_first_indices(make_student: Make, tmp_path: Path) -> None:
    student = make_student("wavlm-base", encoder_num_heads=8, encoder_embed_dim=32)
    assert from_encoder(student).config["encoder_remaining_heads"] == [[0, 7]] * 3
    to_dphubert(from_encoder(student), tmp_path / "student")
    config = torch.load(tmp_path / "student", weights_only=True)["config"]
    assert config["encoder_remaining_heads"] == [[0, 7]] * 3
    assert config["encoder_total_num_heads"] == [8] * 3


def test_the_final_channel_vector_of_a_published_student_acts(make_dense: Make, states: States, tmp_path: Path) -> None:
    teacher, path = make_dense("hubert-base"), tmp_path / "student"
    to_dphubert(from_encoder(teacher), path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["feature_extractor.dummy_weight"] = torch.linspace(0.5, 1.5, 6)
    student = to_encoder(from_dphubert(content, path), path)
    assert not torch.equal(states(student)[0], states(teacher)[0])
    to_dphubert(from_encoder(student), tmp_path / "again")
    again = to_encoder(from_dphubert(read_pickled(tmp_path / "again"), path), path)
    assert all(torch.equal(one, other) for one, other in zip(states(student), states(again), strict=True))


def test_a_diarization_checkpoint_gives_its_encoder(make_dense: Make, states: States, tmp_path: Path) -> None:
    teacher, path = make_dense("wavlm-base"), tmp_path / "whole"
    to_diarizen(from_encoder(teacher), path)
    content = torch.load(path, weights_only=True)
    whole = {f"wavlm_model.{name}": tensor for name, tensor in content["state_dict"].items()}
    content["state_dict"] = {**whole, "classifier.weight": torch.zeros(2, 2)}
    checkpoint = from_dphubert(content, path)
    assert checkpoint.notes == ("left out what is not wavlm_model: 1 tensors",)
    assert torch.equal(states(to_encoder(checkpoint, path))[-1], states(teacher)[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_ff_interm_features": [12, 12, 9]}, "feed_forward.*of shape.*encoder_ff_interm_features"),
        ({"encoder_embed_dim": 32}, "of shape.*for encoder_"),
        ({"encoder_use_attention": [True, False, True]}, "left over: .*layers.1.attention.*encoder_use_attention"),
        ({"encoder_num_heads": [4, 3, 4]}, r"layers.1.attention.*of shape.*encoder_num_heads = \[4, 3, 4\]"),
        ({"encoder_num_layers": 4}, "4 layers"),
        ({"encoder_num_heads": [4, 4]}, "2 values for 3 layers"),
        ({"extractor_conv_bias": True}, "missing: feature_extractor.conv_layers.0.conv.bias.*extractor_conv_bias"),
        ({"extractor_mode": "layer_norm"}, "missing: .*layer_norm.*extractor_mode = layer_norm"),
    ],
)
def test_a_config_that_contradicts_its_tensors_is_named_with_them(
    make_dense: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "teacher"
    to_dphubert(from_encoder(make_dense("hubert-base")), path)
    content = torch.load(path, weights_only=True)
    content["config"].update(change)
    with pytest.raises(DataError, match=message):
        to_encoder(from_dphubert(content, path), path)


def test_a_missing_key_is_named(make_dense: Make, tmp_path: Path) -> None:
    path = tmp_path / "teacher"
    to_dphubert(from_encoder(make_dense("hubert-base")), path)
    content = torch.load(path, weights_only=True)
    del content["config"]["encoder_dropout"]
    with pytest.raises(DataError, match="no 'encoder_dropout'"):
        from_dphubert(content, path)
