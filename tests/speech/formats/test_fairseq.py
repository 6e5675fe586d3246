"""fairseq's and WavLM's checkpoints: names, settings in every form they come in, heads left out."""

import argparse
import collections
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats.checkpoint import to_encoder
from l0prune_speech.formats.fairseq import from_fairseq
from l0prune_speech.formats.pickled import read_pickled
from l0prune_speech.formats.teachers import load_teacher
from torch import Tensor

from l0prune import DataError

Make = Callable[..., SpeechEncoder]
States = Callable[[SpeechEncoder], list[Tensor]]
SHAPES = [(6, 10, 5), (7, 3, 2), (6, 3, 2), (5, 3, 2), (6, 3, 2), (6, 2, 2), (6, 2, 2)]


def to_fairseq(encoder: SpeechEncoder) -> tuple[dict[str, Tensor], dict[str, Any]]:  # noqa: PLR0912 - a branch a name
    """Tensors and settings as fairseq's classes (and WavLM's) keep them, written down name by name."""
    config, theirs = encoder.config, {}
    for name, tensor in encoder.state_dict().items():
        path = name.split(".")
        match path:
            case ["feature_extractor", "conv_layers", i, "conv", kind]:
                new = f"feature_extractor.conv_layers.{i}.0.{kind}"
            case ["feature_extractor", "conv_layers", i, "layer_norm", kind]:
                inner = "2.1" if config["extractor_mode"] == "layer_norm" else "2"
                new = f"feature_extractor.conv_layers.{i}.{inner}.{kind}"
            case ["encoder", "feature_projection", "layer_norm", kind]:
                new = f"layer_norm.{kind}"
            case ["encoder", "feature_projection", "projection", kind]:
                new = f"post_extract_proj.{kind}"
            case ["encoder", "transformer", "rel_attn_embed", kind]:
                new = f"encoder.layers.0.self_attn.relative_attention_bias.{kind}"
            case ["encoder", "transformer", "pos_conv_embed", "conv", "bias"]:
                new = "encoder.pos_conv.0.bias"
            case ["encoder", "transformer", "pos_conv_embed", "conv", "parametrizations", "weight", which]:
                new = "encoder.pos_conv.0." + {"original0": "weight_g", "original1": "weight_v"}[which]
            case ["encoder", "transformer", "layer_norm", kind]:
                new = f"encoder.layer_norm.{kind}"
            case ["encoder", "transformer", "layers", i, "attention", "gru_rel_pos_const"]:
                new = f"encoder.layers.{i}.self_attn.grep_a"
            case ["encoder", "transformer", "layers", i, "attention", "gru_rel_pos_linear", kind]:
                new = f"encoder.layers.{i}.self_attn.grep_linear.{kind}"
            case ["encoder", "transformer", "layers", i, "attention", projection, kind]:
                new = f"encoder.layers.{i}.self_attn.{projection}.{kind}"
            case ["encoder", "transformer", "layers", i, "layer_norm", kind]:
                new = f"encoder.layers.{i}.self_attn_layer_norm.{kind}"
            case ["encoder", "transformer", "layers", i, "feed_forward", linear, kind]:
                new = f"encoder.layers.{i}." + {"intermediate_dense": "fc1", "output_dense": "fc2"}[linear] + f".{kind}"
            case ["encoder", "transformer", "layers", i, "final_layer_norm", kind]:
                new = f"encoder.layers.{i}.final_layer_norm.{kind}"
            case _:
                raise AssertionError(name)
        theirs[new] = tensor.clone()
    settings = {
        "extractor_mode": "default" if config["extractor_mode"] == "group_norm" else "layer_norm",
        "conv_feature_layers": "[(6,10,5)] + [(7, 3, 2)] + [(6, 3, 2)] + [(5, 3, 2)] + [(6, 3, 2)] + [(6,2,2)] * 2",
        "conv_bias": config["extractor_conv_bias"],
        "encoder_layers": 3,
        "encoder_embed_dim": 16,
        "encoder_ffn_embed_dim": 12,
        "encoder_attention_heads": 4,
        "activation_fn": "gelu",
        "layer_norm_first": config["encoder_layer_norm_first"],
        "conv_pos": 4,
        "conv_pos_groups": 2,
    }
    if "encoder_num_buckets" in config:
        settings |= {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 32, "max_distance": 40}
    return theirs, settings


class Omega:
    """Stands for an object of omegaconf in a pickle."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


@pytest.fixture
def omega_conf(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], object]:
    """Makes a DictConfig that pickles as omegaconf's do, by classes whose modules go away again."""
    classes = {}
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    for name in ("dictconfig.DictConfig", "listconfig.ListConfig", "nodes.AnyNode", "base.ContainerMetadata"):
        module, _, last = name.partition(".")
        home = types.ModuleType(f"omegaconf.{module}")
        classes[last] = type(last, (Omega,), {"__module__": home.__name__, "__qualname__": last})
        setattr(home, last, classes[last])
        monkeypatch.setitem(sys.modules, home.__name__, home)

    def make(value: Any) -> object:
        # The types of Python are what real nodes hold; a resolver's cache is a defaultdict.
        cache = collections.defaultdict(dict, {"oc.env": {"seed": 1}})
        metadata = classes["ContainerMetadata"](
            ref_type=Any, object_type=type(value), key_type=int, element_type=list, resolver_cache=cache
        )
        match value:
            case dict():
                content = {key: make(item) for key, item in value.items()}
                return classes["DictConfig"](_metadata=metadata, _parent=None, _content=content)
            case list():
                return classes["ListConfig"](_metadata=metadata, _parent=None, _content=[make(item) for item in value])
        return classes["AnyNode"](_metadata=metadata, _parent=None, _val=value)

    return make


def assert_same(states: States, expected: SpeechEncoder, path: Path) -> None:
    got = to_encoder(from_fairseq(read_pickled(path), path), path)
    assert all(torch.equal(one, other) for one, other in zip(states(expected), states(got), strict=True))
    assert got.normalize_waveform is expected.normalize_waveform


@pytest.mark.parametrize("form", ["tables", "single table", "namespace", "old file", "omegaconf"])
def test_settings_in_every_form(
    make_dense: Make,
    states: States,
    tmp_path: Path,
    kind: str,
    form: str,
    omega_conf: Callable[[dict[str, Any]], object],
) -> None:
    encoder, path = make_dense(kind), tmp_path / "teacher.pt"
    tensors, settings = to_fairseq(encoder)
    normalize = encoder.normalize_waveform
    content: dict[str, Any] = {"model": tensors, "optimizer_history": [], "extra_state": {}}
    match form:
        case "tables":
            content |= {"args": None, "cfg": {"model": {**settings, "_name": "x"}, "task": {"normalize": normalize}}}
        case "single table":
            content["cfg"] = {**settings, "normalize": normalize}
        case "omegaconf":
            layers = {"conv_feature_layers": [[channels, kernel, stride] for channels, kernel, stride in SHAPES]}
            tables = {"model": {**settings, **layers}, "task": {"normalize": normalize, "labels": ["ltr"]}}
            content["cfg"] = omega_conf(tables)
        case _:
            content["args"] = argparse.Namespace(**settings, normalize=normalize, arch="wav2vec2")
    torch.save(content, path, _use_new_zipfile_serialization=form != "old file")
    assert_same(states, encoder, path)


def test_pretraining_and_fine_tuning_heads_are_left_out_with_a_word(
    make_dense: Make, states: States, tmp_path: Path
) -> None:
    encoder = make_dense("hubert-large")
    tensors, settings = to_fairseq(encoder)
    inner = {"model": {**settings, "_name": "hubert"}, "task": {"normalize": True}}
    heads = {
        "mask_emb": torch.zeros(16),
        "label_embs_concat": torch.zeros(5, 4),
        "final_proj.weight": torch.zeros(4, 16),
    }
    torch.save({"cfg": inner, "model": {**tensors, **heads}}, tmp_path / "pretrained.pt")
    checkpoint = from_fairseq(read_pickled(tmp_path / "pretrained.pt"), "here")
    assert checkpoint.notes == ("left out the pre-training head",)
    assert checkpoint.config["family"] == "hubert"
    assert_same(states, encoder, tmp_path / "pretrained.pt")
    tuned = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in tensors.items()}
    content = {"cfg": {"model": {"_name": "hubert_ctc", "w2v_args": inner}}, "model": tuned}
    content["model"]["w2v_encoder.proj.weight"] = torch.zeros(7, 16)
    torch.save(content, tmp_path / "tuned.pt")
    notes = from_fairseq(read_pickled(tmp_path / "tuned.pt"), "here").notes
    assert notes == ("left out what fine-tuning added: w2v_encoder.proj.weight",)
    assert_same(states, encoder, tmp_path / "tuned.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_feature_layers": "__import__('os').system('true')"}, "cannot read conv_feature_layers"),
        ({"conv_feature_layers": "[(6, 10, 5)] * 10000000000"}, "cannot read conv_feature_layers"),
        ({"conv_feature_layers": "[(6, 10)]"}, "cannot read conv_feature_layers"),
        ({"activation_fn": "relu"}, "not an encoder of these families"),
        ({"encoder_ffn_embed_dim": 13}, "of shape.*encoder_ffn_embed_dim = 13"),
        ({"encoder_layers": 4}, "tensors of 3 layers, expected encoder_layers = 4"),
    ],
)
def test_wrong_settings_are_one_line(make_dense: Make, change: dict[str, Any], message: str) -> None:
    tensors, settings = to_fairseq(make_dense("hubert-base"))
    with pytest.raises(DataError, match=message):
        to_encoder(from_fairseq({"model": tensors, "cfg": {**settings, **change}}, "here"), "here")


def test_missing_settings_are_said(make_dense: Make) -> None:
    tensors, _ = to_fairseq(make_dense("hubert-base"))
    with pytest.raises(DataError, match="settings of a fairseq checkpoint are missing"):
        from_fairseq({"model": tensors, "cfg": None}, "here")


@pytest.mark.parametrize("normalize", [True, False])
def test_checkpoints_that_s3prl_converted_load(
    make_dense: Make, states: States, tmp_path: Path, kind: str, normalize: bool
) -> None:
    encoder = make_dense(kind, normalize_waveform=normalize)
    tensors, settings = to_fairseq(encoder)
    converted = {"task_cfg": {"normalize": normalize}, "model_cfg": settings, "model_weight": tensors}
    if kind.startswith("hubert"):
        converted["dictionaries_symbols"] = [["<s>", "0", "1"]]
    torch.save(converted, tmp_path / "converted.pt")
    teacher = load_teacher(str(tmp_path / "converted.pt"))
    assert all(torch.equal(*pair) for pair in zip(states(encoder), states(teacher.encoder), strict=True))
    assert teacher.encoder.normalize_waveform is normalize
    assert teacher.config["family"] == kind.partition("-")[0]
