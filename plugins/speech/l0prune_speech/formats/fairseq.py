"""fairseq's `.pt` checkpoints of wav2vec 2.0 and HuBERT, WavLM's, which follow them, and those that s3prl converts.

fairseq is not needed.

Source: fairseq's models wav2vec2, hubert and wav2vec2_asr; microsoft/unilm's WavLM; s3prl's `convert.py` of both.
"""

import ast
from collections.abc import Mapping
from typing import Any

from l0prune import DataError, listed
from l0prune_speech.formats.checkpoint import PARAMETRIZED, Checkpoint, renamed
from l0prune_speech.formats.fit import named_tensors
from l0prune_speech.formats.pickled import Inert
from l0prune_speech.formats.registry import Format, register_format
from l0prune_speech.formats.source import Source

_FINE_TUNED = "w2v_encoder.w2v_model."
_PRETRAINING = ("mask_emb", "label_embs_concat", "final_proj.", "quantizer.", "project_q.", "target_glu.")
_LAYER = r"^encoder\.layers\.(\d+)\."
_NAMES = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2(?:\.1)?\.", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^post_extract_proj\.", "encoder.feature_projection.projection."),
    (r"^layer_norm\.", "encoder.feature_projection.layer_norm."),
    (r"^encoder\.layers\.0\.self_attn\.relative_attention_bias\.", "encoder.transformer.rel_attn_embed."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.grep_linear\.", r"encoder.layers.\1.self_attn.gru_rel_pos_linear."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.grep_a$", r"encoder.layers.\1.self_attn.gru_rel_pos_const"),
    (_LAYER + r"self_attn\.", r"encoder.layers.\1.attention."),
    (_LAYER + r"self_attn_layer_norm\.", r"encoder.layers.\1.layer_norm."),
    (_LAYER + r"fc1\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
    (_LAYER + r"fc2\.", r"encoder.layers.\1.feed_forward.output_dense."),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"^encoder\.(pos_conv_embed|layers|layer_norm)\.", r"encoder.transformer.\1."),
    *PARAMETRIZED,
)
_SAME = {
    "encoder_embed_dim": "encoder_embed_dim",
    "encoder_projection_dropout": "dropout_input",
    "encoder_pos_conv_kernel": "conv_pos",
    "encoder_pos_conv_groups": "conv_pos_groups",
    "encoder_num_layers": "encoder_layers",
    "encoder_num_heads": "encoder_attention_heads",
    "encoder_attention_dropout": "attention_dropout",
    "encoder_ff_interm_features": "encoder_ffn_embed_dim",
    "encoder_ff_interm_dropout": "activation_dropout",
    "encoder_dropout": "dropout",
    "encoder_layer_norm_first": "layer_norm_first",
    "encoder_layer_drop": "encoder_layerdrop",
    "extractor_conv_bias": "conv_bias",
}
"""Ours by theirs."""
_SAID = {**_SAME, "extractor_conv_layer_config": "conv_feature_layers", "extractor_mode": "extractor_mode"}
_DEFAULTS = {
    "extractor_mode": "default",
    "conv_feature_layers": "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2",
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "dropout_input": 0.0,
    "layer_norm_first": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "num_buckets": 320,
    "max_distance": 1280,
}
"""fairseq's and WavLM's own: what an older checkpoint does not mention."""


def from_fairseq(content: Mapping[str, Any], where: object) -> Checkpoint:
    """Read a pre-trained or fine-tuned checkpoint.

    Args:
        content: What the file holds: `model`, and `cfg` or `args`.
        where: The file, for messages.

    Raises:
        DataError: The settings cannot be understood, or are those of another model.
    """
    settings = _plain(content.get("cfg") or content.get("args"))
    tensors, notes = named_tensors(content["model"], where), []
    if any(name.startswith(_FINE_TUNED) for name in tensors):
        others = [name for name in tensors if not name.startswith(_FINE_TUNED)]
        notes.append(f"left out what fine-tuning added: {listed(others)}")
        tensors = {n.removeprefix(_FINE_TUNED): t for n, t in tensors.items() if n.startswith(_FINE_TUNED)}
        settings = _mapping(_mapping(settings).get("model", settings)).get("w2v_args", settings)
    # Newer checkpoints have a table each for model and task, older ones and WavLM's a single one.
    settings = _mapping(settings)
    model, task = _mapping(settings.get("model", settings)), _mapping(settings.get("task", settings))
    known = {key: model[key] for key in _DEFAULTS if model.get(key) is not None}
    if not known:
        raise DataError(
            "settings of a fairseq checkpoint are missing", where=where, expected="cfg or args beside model"
        )
    chosen = {**_DEFAULTS, **known}
    if chosen["activation_fn"] != "gelu" or chosen["extractor_mode"] not in ("default", "layer_norm"):
        got = {key: chosen[key] for key in ("activation_fn", "extractor_mode")}
        raise DataError("not an encoder of these families", where=where, got=got)
    relative = any("relative_attention_bias" in name for name in tensors)
    config = {
        **{ours: chosen[theirs] for ours, theirs in _SAME.items()},
        "extractor_mode": "group_norm" if chosen["extractor_mode"] == "default" else "layer_norm",
        "extractor_conv_layer_config": _convolutions(chosen["conv_feature_layers"], where),
        "aux_num_out": None,
        "normalize_waveform": bool(task.get("normalize", model.get("normalize", False))),
        "family": "wavlm" if relative else _family(content, model),
    }
    if relative:
        config |= {"encoder_num_buckets": chosen["num_buckets"], "encoder_max_distance": chosen["max_distance"]}
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PRETRAINING)}
    if len(kept) < len(tensors):
        notes.append("left out the pre-training head")
    said = {ours: (theirs, chosen[theirs]) for ours, theirs in _SAID.items()}
    return Checkpoint(config=config, tensors=renamed(kept, *_NAMES), notes=tuple(notes), said=said)


def _family(content: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    named = "hubert" in str(model.get("_name") or model.get("arch") or "")
    # s3prl keeps the dictionaries of HuBERT's units, and of wav2vec 2.0 none.
    hubert = named or "label_embs_concat" in content["model"] or "dictionaries_symbols" in content
    return "hubert" if hubert else "wav2vec2"


def _plain(value: Any) -> Any:
    """Settings objects as dictionaries: argparse's namespaces, omegaconf's nodes."""
    if isinstance(value, Inert):
        state = _mapping(value.state)
        return _plain(state.get("_content", state.get("_val", state)))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _mapping(value: Any) -> Mapping[str, Any]:
    value = _plain(value) if isinstance(value, Inert) else value
    return value if isinstance(value, Mapping) else {}


def _convolutions(text: Any, where: object) -> list[tuple[int, int, int]]:
    """`[(512, 10, 5)] + [(512, 3, 2)] * 4`, as fairseq writes its convolutions, without evaluating it as code."""
    try:
        layers = _value(ast.parse(text.strip(), mode="eval").body) if isinstance(text, str) else text
        return [(int(channels), int(kernel), int(stride)) for channels, kernel, stride in layers]
    except (SyntaxError, TypeError, ValueError) as error:
        expected = "a list like [(512, 10, 5)] + [(512, 3, 2)] * 4"
        raise DataError("cannot read conv_feature_layers", where=where, got=text, expected=expected) from error


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))) if times <= 1000:
            return _value(left) * times
    raise ValueError("neither list, tuple nor number")


def _claims(source: Source) -> bool:
    return source.holds(model=Mapping) or source.holds(model_weight=Mapping, model_cfg=Mapping)


def _read(source: Source) -> Checkpoint:
    content = source.content
    if "model_weight" in content:
        settings = {"model": content["model_cfg"], "task": content.get("task_cfg")}
        content = {**content, "model": content["model_weight"], "cfg": settings}
    return from_fairseq(content, source.path)


register_format(
    Format(
        name="fairseq",
        reads="a .pt of fairseq or WavLM (model and cfg), or as s3prl converts it (model_weight and model_cfg)",
        claims=_claims,
        read=_read,
    )
)
