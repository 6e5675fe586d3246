"""benchmarks/real_material: CTranslate2's binary form, and Whisper's names in it."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from l0bench.real_material.ctranslate2 import read_variables
from l0bench.real_material.whisper_tiny import transformers_state
from torch import Tensor

from l0prune import DataError

TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def written(arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> bytes:
    """The form, as CTranslate2's converter writes it."""
    parts = [struct.pack("<I", 6), text("WhisperSpec"), struct.pack("<II", 3, len(arrays))]
    for name, value in arrays.items():
        parts += [text(name), struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)]
        parts += [struct.pack("<BI", TYPES[str(value.dtype)], value.nbytes), value.tobytes()]
    parts.append(struct.pack("<I", len(aliases)))
    parts += [text(part) for pair in aliases.items() for part in pair]
    return b"".join(parts)


ARRAYS = {
    "encoder/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder/half": np.array([0.5, -2.0], dtype=np.float16),
    "flag": np.array(1, dtype=np.int8),
    "ids": np.array([3, 1], dtype=np.int32),
}


def test_arrays_and_aliases_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(written(ARRAYS, {"decoder/weight": "encoder/weight"}))
    found = read_variables(file)
    assert found.keys() == ARRAYS.keys() | {"decoder/weight"}
    for name, value in (ARRAYS | {"decoder/weight": ARRAYS["encoder/weight"]}).items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


@pytest.mark.parametrize("length", [0, 3, 20, 45, 70])
def test_a_damaged_file_is_named(tmp_path: Path, length: int) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(written(ARRAYS, {})[:length])
    with pytest.raises(DataError, match=r"not a model of CTranslate2's form: model\.bin"):
        read_variables(file)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    file, whole = tmp_path / "model.bin", written({"x": np.zeros(1, np.int8)}, {})
    file.write_bytes(whole.replace(struct.pack("<BI", 1, 1), struct.pack("<BI", 9, 1)))
    with pytest.raises(DataError, match="CTranslate2"):
        read_variables(file)


def fused(state: Mapping[str, Tensor], layers: int) -> dict[str, np.ndarray]:
    """A transformers state dict in CTranslate2's names: the inverse of what is tested."""
    found: dict[str, Tensor] = {}

    def linear(theirs: str, *ours: str) -> None:
        found[f"{theirs}/weight"] = torch.cat([state[f"{name}.weight"] for name in ours])
        biases = [state.get(f"{name}.bias", torch.zeros(len(state[f"{name}.weight"]))) for name in ours]
        found[f"{theirs}/bias"] = torch.cat(biases)

    def norm(theirs: str, ours: str) -> None:
        found[f"{theirs}/gamma"], found[f"{theirs}/beta"] = state[f"{ours}.weight"], state[f"{ours}.bias"]

    for part in ("encoder", "decoder"):
        for i in range(layers):
            theirs, ours = f"{part}/layer_{i}", f"model.{part}.layers.{i}"
            three = [f"{ours}.self_attn.{name}_proj" for name in "qkv"]
            linear(f"{theirs}/self_attention/linear_0", *three)
            linear(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
            norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
            if part == "decoder":
                linear(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn.q_proj")
                linear(f"{theirs}/attention/linear_1", f"{ours}.encoder_attn.k_proj", f"{ours}.encoder_attn.v_proj")
                linear(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
                norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
        norm(f"{part}/layer_norm", f"model.{part}.layer_norm")
    linear("encoder/conv1", "model.encoder.conv1")
    linear("encoder/conv2", "model.encoder.conv2")
    found["encoder/position_encodings/encodings"] = state["model.encoder.embed_positions.weight"]
    found["decoder/position_encodings/encodings"] = state["model.decoder.embed_positions.weight"]
    found["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    return {name: value.numpy() for name, value in found.items()}


def test_every_weight_of_a_whisper_comes_back_under_its_own_name() -> None:
    from tiny_whisper import tiny_whisper

    model = tiny_whisper()
    before = {name: value for name, value in model.state_dict().items() if name != "proj_out.weight"}
    after = transformers_state(fused(before, layers=2), layers=2)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_missing_array_is_named() -> None:
    with pytest.raises(DataError, match="an array is missing in the model: encoder/layer_0"):
        transformers_state({}, layers=1)
