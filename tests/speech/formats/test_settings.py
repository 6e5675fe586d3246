"""Whatever stands in a checkpoint's settings: an encoder comes of it, or one line that says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats.checkpoint import Checkpoint, from_encoder, to_encoder
from l0prune_speech.formats.dphubert import from_dphubert, to_dphubert
from l0prune_speech.formats.fairseq import from_fairseq
from l0prune_speech.formats.huggingface import from_huggingface, to_huggingface
from l0prune_speech.formats.pickled import read_pickled

from l0prune import DataError

Make = Callable[..., SpeechEncoder]
FAIRSEQ = {
    "extractor_mode": "default",
    "conv_feature_layers": "[(6, 10, 5)]",
    "conv_bias": False,
    "encoder_layers": 3,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 12,
    "encoder_attention_heads": 4,
    "conv_pos": 4,
    "conv_pos_groups": 2,
    "num_buckets": 32,
    "max_distance": 40,
    "normalize": True,
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**12) | st.floats(-1, 2) | st.sampled_from(["", "12", "group", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@pytest.fixture(params=["hubert-base", "wavlm-large"])
def forms(
    request: pytest.FixtureRequest, make_student: Make, tmp_path: Path
) -> dict[str, tuple[dict[str, Any], Callable[[Any], Checkpoint]]]:
    """Each format's settings, and what reads the checkpoint of a student with others in their place."""
    checkpoint = from_encoder(make_student(request.param, ("0.feed_forward",)))
    to_dphubert(checkpoint, tmp_path / "student.pth")
    content = read_pickled(tmp_path / "student.pth")
    (tmp_path / "hf").mkdir()
    to_huggingface(checkpoint, tmp_path / "hf", "card")
    stated = json.loads((tmp_path / "hf" / "config.json").read_text())

    def huggingface(changed: dict[str, Any]) -> Checkpoint:
        (tmp_path / "hf" / "config.json").write_text(json.dumps(changed))
        return from_huggingface(tmp_path / "hf")

    return {
        "dphubert": (content["config"], lambda changed: from_dphubert({**content, "config": changed}, "here")),
        "fairseq": (FAIRSEQ, lambda changed: from_fairseq({"model": content["state_dict"], "cfg": changed}, "here")),
        "huggingface": (stated, huggingface),
    }


@pytest.mark.parametrize("form", ["dphubert", "fairseq", "huggingface"])
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_strange_settings_are_one_line(
    forms: dict[str, tuple[dict[str, Any], Callable[[Any], Checkpoint]]], form: str, data: st.DataObject
) -> None:
    stated, read = forms[form]
    key = data.draw(st.sampled_from(sorted(stated)))
    changed = {**stated, key: data.draw(VALUES, label=key)}
    try:
        encoder = to_encoder(read(changed), "here")
    except DataError as error:
        said = str(error)
    else:
        with torch.no_grad():
            said = "" if torch.isfinite(encoder(torch.randn(1, 800))[0]).all() else "not finite"
    assert said != "not finite"
    assert "\n" not in said
