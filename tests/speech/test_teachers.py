"""Teachers from torchaudio's bundles and from files, with the download replaced by weights made here."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchaudio
from l0prune_speech import teachers
from l0prune_speech.teachers import load_teacher
from safetensors.torch import save_file
from torch import Tensor
from torchaudio.models import wav2vec2_model
from torchaudio.pipelines import Wav2Vec2ASRBundle, Wav2Vec2Bundle

from l0prune import ConfigError, DataError


class Bundle(Wav2Vec2Bundle):
    """A bundle whose download is random weights."""

    def _get_state_dict(self, dl_kwargs: object) -> dict[str, Tensor]:
        torch.manual_seed(5)
        return wav2vec2_model(**self._params).state_dict()


@pytest.mark.parametrize("normalize", [True, False])
def test_a_bundle_gives_torchaudios_own_features(
    monkeypatch: pytest.MonkeyPatch, encoder_config: dict[str, Any], normalize: bool
) -> None:
    bundle = Bundle("", encoder_config, 16_000.0, normalize, "Wav2Vec2")
    monkeypatch.setattr(teachers, "_bundles", lambda: {"SMALL": bundle})
    teacher = load_teacher("SMALL")
    waveforms = 3 * torch.randn(1, 1_600) + 1
    with torch.no_grad():
        expected, got = (
            bundle.get_model().extract_features(waveforms)[0],
            teacher.encoder.extract_features(waveforms)[0],
        )
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    assert teacher.config["normalize_waveform"] is normalize
    assert not any(parameter.requires_grad for parameter in teacher.encoder.parameters())


def test_a_transcription_head_is_dropped(monkeypatch: pytest.MonkeyPatch, encoder_config: dict[str, Any]) -> None:
    bundle = Bundle("", {**encoder_config, "aux_num_out": 7}, 16_000.0, False, "Wav2Vec2")
    monkeypatch.setattr(teachers, "_bundles", lambda: {"SMALL": bundle})
    teacher = load_teacher("SMALL")
    assert teacher.encoder.aux is None
    assert teacher.config["aux_num_out"] is None


def test_every_bundle_of_the_families_is_offered() -> None:
    bundles = teachers._bundles()
    assert {"HUBERT_BASE", "HUBERT_LARGE", "HUBERT_XLARGE", "WAV2VEC2_BASE", "WAV2VEC2_XLSR_300M"} <= set(bundles)
    assert {"WAVLM_BASE", "WAVLM_BASE_PLUS", "WAVLM_LARGE"} <= set(bundles)
    assert all(isinstance(bundle, Wav2Vec2Bundle | Wav2Vec2ASRBundle) for bundle in bundles.values())
    assert torchaudio.pipelines.HUBERT_BASE is bundles["HUBERT_BASE"]


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch, encoder_config: dict[str, Any]) -> None:
    def fail(self: Bundle, dl_kwargs: object) -> dict[str, Tensor]:
        raise URLError("no route")

    monkeypatch.setattr(Bundle, "_get_state_dict", fail)
    bundle = Bundle("", encoder_config, 16_000.0, False, "Wav2Vec2")
    monkeypatch.setattr(teachers, "_bundles", lambda: {"SMALL": bundle})
    with pytest.raises(DataError, match="cannot download the teacher: SMALL"):
        load_teacher("SMALL")


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    foreign, damaged = tmp_path / "foreign.safetensors", tmp_path / "damaged.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    damaged.write_bytes(b"\x00" * 100)
    with pytest.raises(DataError, match="not a teacher file"):
        load_teacher(str(foreign))
    with pytest.raises(DataError, match="damaged teacher file"):
        load_teacher(str(damaged))
    with pytest.raises(ConfigError, match="no such teacher"):
        load_teacher(str(tmp_path / "missing.safetensors"))
