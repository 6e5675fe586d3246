"""HuBERT Base at full size, with random weights."""

from pathlib import Path

import torch
import torchaudio
from l0prune_speech.groups import encoder_groups

import l0prune
from l0prune import GateConfig, GatedModel


def test_accounting_target_and_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = torchaudio.models.hubert_base().eval()
    config = GateConfig(drop_rates={"ffn": 0.5})
    gated = GatedModel(encoder, encoder_groups(encoder), target_sparsity=0.75, config=config).eval()
    assert gated.size_model.total == 94_370_944
    with torch.no_grad():
        gated.gates.log_alpha.copy_(2 * torch.randn_like(gated.gates.log_alpha))
    pruned, plan = gated.pruned()
    kept = sum(parameter.numel() for parameter in pruned.parameters())
    budget = 94_370_944 * 0.25
    assert budget * (1 - 0.0003) <= kept <= budget
    waveforms, lengths = torch.randn(2, 8_000), torch.tensor([8_000, 6_000])
    with torch.no_grad():
        expected = pruned.extract_features(waveforms, lengths)
        l0prune.save(pruned, plan, tmp_path)
        loaded = l0prune.load(tmp_path, torchaudio.models.hubert_base)
        got = loaded.extract_features(waveforms, lengths)  # type: ignore[operator]
    assert all(torch.equal(one, other) for one, other in zip(expected[0], got[0], strict=True))
    assert torch.equal(expected[1], got[1])
