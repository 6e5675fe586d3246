"""Small encoders of each family and layout, dense and pruned."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder, build_encoder
from torch import Tensor

from l0prune import GatedModel

BASE = {"extractor_mode": "group_norm", "extractor_conv_bias": False, "encoder_layer_norm_first": False}
LARGE = {
    "extractor_mode": "layer_norm",
    "extractor_conv_bias": True,
    "encoder_layer_norm_first": True,
    "normalize_waveform": True,
}
RELATIVE = {"encoder_num_buckets": 32, "encoder_max_distance": 40}
KINDS = {
    f"{family}-{size}": {**layout, **(RELATIVE if family == "wavlm" else {}), "family": family}
    for family in ("hubert", "wav2vec2", "wavlm")
    for size, layout in (("base", BASE), ("large", LARGE))
}
Make = Callable[..., SpeechEncoder]
States = Callable[[SpeechEncoder], list[Tensor]]


def randomize(encoder: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + 0.1)
    return encoder


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each family in each layout."""
    return request.param


@pytest.fixture
def make_dense(encoder_config: dict[str, Any]) -> Make:
    """Makes a dense encoder of a kind: 20 ms frames, 3 layers of 4 heads."""

    def make(kind: str, **changes: Any) -> SpeechEncoder:
        shapes = [(6, 10, 5), (7, 3, 2), (6, 3, 2), (5, 3, 2), (6, 3, 2), (6, 2, 2), (6, 2, 2)]
        layout = {"extractor_conv_layer_config": shapes, "encoder_embed_dim": 16, "encoder_num_heads": 4}
        torch.manual_seed(0)
        encoder = build_encoder({**encoder_config, **layout, **KINDS[kind], **changes})
        return randomize(encoder).eval()  # type: ignore[return-value]

    return make


@pytest.fixture
def make_student(make_dense: Make) -> Make:
    """Makes a pruned encoder of a kind; `emptied` names blocks such as "0.attention"."""

    def make(kind: str, emptied: Collection[str] = (), **changes: Any) -> SpeechEncoder:
        encoder = make_dense(kind, **changes)
        gated = GatedModel(encoder, encoder_groups(encoder), target_sparsity=1e-15).eval()
        generator, values = torch.Generator().manual_seed(1), []
        for group in gated.groups:
            kept = torch.rand(group.units, generator=generator).clamp_min(0.2)
            kept[1 : 1 + 3 * group.units // 4] = 0
            if any(f"layers.{block}." in group.name for block in emptied):
                kept.zero_()
            values.append(kept)
        with torch.no_grad(), gated.gates.fixed(torch.cat(values)):
            return gated.pruned()[0].eval()  # type: ignore[return-value]

    return make


@pytest.fixture
def modules_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where transformers copies the code that folders bring along, for this test alone."""
    from transformers.dynamic_module_utils import HF_MODULES_CACHE

    for home in ("dynamic_module_utils", "utils.hub", "utils"):
        module = __import__(f"transformers.{home}", fromlist=["HF_MODULES_CACHE"])
        if getattr(module, "HF_MODULES_CACHE", None) == HF_MODULES_CACHE:
            monkeypatch.setattr(module, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "modules"


@pytest.fixture
def clips() -> tuple[Tensor, Tensor]:
    """Waveforms (3, samples) of different lengths, zero behind their ends, and the lengths."""
    lengths = torch.tensor([6_000, 3_500, 4_700])
    return torch.randn(3, 6_000) * (torch.arange(6_000) < lengths[:, None]), lengths


@pytest.fixture
def states(clips: tuple[Tensor, Tensor]) -> States:
    """Hidden states of an encoder on the clips."""
    waveforms, lengths = clips

    def run(encoder: SpeechEncoder) -> list[Tensor]:
        with torch.no_grad():
            return encoder.hidden_states(waveforms, None, lengths)

    return run
