"""Hugging Face directories: transformers' own models in, dense and pruned encoders out and in transformers again."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from l0prune_speech.encoder.modules import SpeechEncoder, normalized
from l0prune_speech.formats.checkpoint import from_encoder, to_encoder
from l0prune_speech.formats.huggingface import from_huggingface, to_huggingface
from l0prune_speech.formats.huggingface_settings import DEFAULTS, WAVLM_DEFAULTS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from l0prune import DataError

Make = Callable[..., SpeechEncoder]
States = Callable[[SpeechEncoder], list[Tensor]]
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 12,
    "conv_dim": [6, 6, 6],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 4, 4],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
CLASSES = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}


def make_theirs(family: str, task: str = "Model", **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{CLASSES[family]}Config")(**{**SMALL, **changes})
    model = getattr(transformers, f"{CLASSES[family]}{task}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + 0.1)
    return model


def run_theirs(model: nn.Module, clips: tuple[Tensor, Tensor], *, normalize: bool) -> list[Tensor]:
    """Hidden states from behind the positional convolution on, then the last one as transformers returns it."""
    waveforms, lengths = clips
    values = normalized(waveforms, lengths) if normalize else waveforms
    mask = (torch.arange(waveforms.shape[1]) < lengths[:, None]).long()
    with torch.no_grad(), warnings.catch_warnings():
        # transformers' WavLM gives torch masks of two types.
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
        outputs = model(values, attention_mask=mask, output_hidden_states=True)
    return [*outputs.hidden_states, outputs.last_hidden_state]


def run_ours(encoder: SpeechEncoder, clips: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The same states of an encoder."""
    waveforms, lengths = clips
    with torch.no_grad():
        first, *others = encoder.hidden_states(waveforms, None, lengths)
        transformer: Any = encoder.encoder.transformer
        return [transformer._preprocess(first), *others, encoder(waveforms, lengths)[0]]


@pytest.mark.parametrize("layout", [{}, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("family", list(CLASSES))
def test_transformers_own_models_load_and_agree(
    tmp_path: Path, clips: tuple[Tensor, Tensor], family: str, layout: dict[str, Any]
) -> None:
    model = make_theirs(family, **layout)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    checkpoint = from_huggingface(tmp_path)
    encoder = to_encoder(checkpoint, tmp_path)
    how = "are" if layout else "are not"
    missing = "neither processor_config.json nor preprocessor_config.json says so"
    assert checkpoint.notes == (f"assumed that waveforms {how} normalised: {missing}",)
    assert checkpoint.config["family"] == family
    assert encoder.normalize_waveform is bool(layout)
    theirs = run_theirs(model, clips, normalize=bool(layout))
    for one, other in zip(run_ours(encoder, clips), theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    # Layer 0 is the paper's: what the convolutions give, projected.
    waveforms, lengths = clips
    features, _ = encoder.feature_extractor(encoder.normalize(waveforms, lengths), lengths)
    with torch.no_grad():
        projected = encoder.encoder.feature_projection(features)  # type: ignore[operator, union-attr]
        layer_0 = encoder.hidden_states(waveforms, None, lengths)[0]
    assert torch.equal(layer_0[0], projected[0])


@pytest.mark.parametrize("family", list(CLASSES))
def test_a_task_model_gives_its_encoder_with_a_word(tmp_path: Path, family: str) -> None:
    model = make_theirs(family, "ForCTC", vocab_size=7)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    checkpoint = from_huggingface(tmp_path)
    assert checkpoint.notes[0] == "left out what is not the encoder: lm_head.bias, lm_head.weight"
    inner = getattr(model, family).encoder.layers[2].final_layer_norm.weight
    assert torch.equal(checkpoint.tensors["encoder.transformer.layers.2.final_layer_norm.weight"], inner)
    to_encoder(checkpoint, tmp_path)


@pytest.mark.parametrize("names", ["weight_norm", "parametrizations"])
def test_older_directories_with_pickled_weights_load(tmp_path: Path, states: States, names: str) -> None:
    model = make_theirs("wavlm")
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    expected = to_encoder(from_huggingface(tmp_path), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    if names == "weight_norm":
        for old, new in (("original0", "weight_g"), ("original1", "weight_v")):
            name = f"encoder.pos_conv_embed.conv.parametrizations.weight.{old}"
            tensors[f"encoder.pos_conv_embed.conv.{new}"] = tensors.pop(name)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    loaded = to_encoder(from_huggingface(tmp_path), tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(states(expected), states(loaded), strict=True))


def test_weights_in_several_files_load(tmp_path: Path, states: States) -> None:
    model = make_theirs("hubert")
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    expected = to_encoder(from_huggingface(tmp_path), tmp_path)
    model.save_pretrained(tmp_path / "parts", max_shard_size="10KB")  # type: ignore[operator]
    assert (tmp_path / "parts" / "model.safetensors.index.json").is_file()
    loaded = to_encoder(from_huggingface(tmp_path / "parts"), tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(states(expected), states(loaded), strict=True))


def test_defaults_are_those_of_transformers() -> None:
    for family, name in CLASSES.items():
        config = getattr(transformers, f"{name}Config")().to_dict()
        expected = {**DEFAULTS, **(WAVLM_DEFAULTS if family == "wavlm" else {})}
        got = {key: list(config[key]) if isinstance(config[key], tuple) else config[key] for key in expected}
        assert got == expected


@pytest.mark.parametrize("stated", [True, False])
def test_the_preprocessor_says_whether_waveforms_are_normalised(tmp_path: Path, stated: bool) -> None:
    make_theirs("hubert", **({} if stated else LARGE)).save_pretrained(tmp_path)  # type: ignore[operator]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": stated}))
    checkpoint = from_huggingface(tmp_path)
    assert checkpoint.config["normalize_waveform"] is stated
    assert checkpoint.notes == ()


@pytest.mark.parametrize("stated", [True, False])
def test_the_processor_that_transformers_writes_says_it_too(
    tmp_path: Path, clips: tuple[Tensor, Tensor], stated: bool
) -> None:
    model = make_theirs("hubert", **({} if stated else LARGE))
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=stated, return_attention_mask=True)
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    checkpoint = from_huggingface(tmp_path)
    assert checkpoint.notes == ()
    encoder = to_encoder(checkpoint, tmp_path)
    theirs = run_theirs(model, clips, normalize=stated)
    for one, other in zip(run_ours(encoder, clips), theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    # Where both files are there, transformers takes this one.
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": not stated}))
    assert from_huggingface(tmp_path).config["normalize_waveform"] is stated
    taken = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    assert taken.do_normalize is stated


def test_a_dense_encoder_goes_to_transformers_own_class_and_back(
    make_dense: Make, states: States, clips: tuple[Tensor, Tensor], tmp_path: Path, kind: str
) -> None:
    encoder = make_dense(kind)
    to_huggingface(from_encoder(encoder), tmp_path, "card")
    model = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(model).__name__ == f"{CLASSES[kind.partition('-')[0]]}Model"
    theirs = run_theirs(model, clips, normalize=encoder.normalize_waveform)
    for one, other in zip(run_ours(encoder, clips), theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    back = to_encoder(from_huggingface(tmp_path), tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(states(encoder), states(back), strict=True))
    configs = [from_encoder(one).config for one in (encoder, back)]
    assert len({json.dumps({k: v for k, v in config.items() if v}, sort_keys=True) for config in configs}) == 1


@pytest.mark.parametrize("emptied", [(), ("0.attention", "2.attention", "1.feed_forward")], ids=["full", "emptied"])
def test_a_student_brings_its_class_along(
    make_student: Make,
    states: States,
    clips: tuple[Tensor, Tensor],
    tmp_path: Path,
    modules_cache: Path,
    kind: str,
    emptied: tuple[str, ...],
) -> None:
    student = make_student(kind, emptied)
    (tmp_path / "student").mkdir()
    to_huggingface(from_encoder(student), tmp_path / "student", "card")
    model = transformers.AutoModel.from_pretrained(tmp_path / "student", trust_remote_code=True)
    assert type(model).__name__ == f"Pruned{CLASSES[kind.partition('-')[0]]}Model"
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in student.parameters())
    theirs = run_theirs(model, clips, normalize=student.normalize_waveform)
    for one, other in zip(run_ours(student, clips), theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    back = to_encoder(from_huggingface(tmp_path / "student"), tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(states(student), states(back), strict=True))


def test_a_students_attention_weights_are_its_own_heads(
    make_student: Make, clips: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    from l0prune_speech.formats.modeling_l0prune import PrunedWavLMModel

    to_huggingface(from_encoder(make_student("wavlm-base")), tmp_path, "card")
    model = PrunedWavLMModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        plain, shown = (model(clips[0], output_attentions=flag) for flag in (False, True))
    torch.testing.assert_close(plain.last_hidden_state, shown.last_hidden_state, atol=1e-5, rtol=1e-5)
    assert [weights.shape[1] for weights in shown.attentions] == [1, 1, 1]
    torch.testing.assert_close(shown.attentions[0].sum(-1), torch.ones(shown.attentions[0].shape[:-1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "not an encoder of these families.*got bert"),
        ({"hidden_size": 32}, "of shape.*for .*(hidden_size|num_attention_heads|num_conv)"),
        ({"intermediate_size": 13}, "of shape.*intermediate_size = 13"),
        ({"num_hidden_layers": 2}, "tensors of 3 layers, expected num_hidden_layers = 2"),
        ({"conv_dim": [6, 6]}, "conv_dim, conv_kernel and conv_stride differ in length"),
        ({"hidden_act": "relu"}, "hidden_act is not supported.*relu"),
        ({"num_attention_heads": 3}, "no encoder has this configuration"),
    ],
)
def test_wrong_configs_are_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    make_theirs("hubert").save_pretrained(tmp_path)  # type: ignore[operator]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(DataError, match=message) as caught:
        to_encoder(from_huggingface(tmp_path), tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_line(tmp_path: Path) -> None:
    make_theirs("hubert").save_pretrained(tmp_path)  # type: ignore[operator]
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for damage in (whole[:-100], b"\xff" * 16 + whole[16:], b""):
        weights.write_bytes(damage)
        with pytest.raises(DataError, match="damaged or missing weights"):
            from_huggingface(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"no weights beside config\.json"):
        from_huggingface(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="cannot read"):
        from_huggingface(tmp_path)


def test_tensors_that_belong_to_nothing_are_listed(tmp_path: Path) -> None:
    make_theirs("hubert").save_pretrained(tmp_path)  # type: ignore[operator]
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer_norm.bias"]
    save_file({**tensors, "encoder.more.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    message = "missing: encoder.transformer.layer_norm.bias; left over: encoder.transformer.more.weight"
    with pytest.raises(DataError, match=message):
        to_encoder(from_huggingface(tmp_path), tmp_path)


def test_a_model_type_that_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": []}')
    with pytest.raises(DataError, match=r"not an encoder of these families"):
        from_huggingface(tmp_path)
