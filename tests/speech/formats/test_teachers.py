"""Teachers from bundles, hubs, files and folders, with each download replaced by weights made here."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchaudio
from l0prune_speech.encoder import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats import teachers
from l0prune_speech.formats.checkpoint import from_encoder
from l0prune_speech.formats.diarizen import to_diarizen
from l0prune_speech.formats.dphubert import to_dphubert
from l0prune_speech.formats.huggingface import to_huggingface
from l0prune_speech.formats.s3prl import to_s3prl
from l0prune_speech.formats.teachers import load_teacher
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchaudio.models import wav2vec2_model, wavlm_model
from torchaudio.pipelines import Wav2Vec2ASRBundle, Wav2Vec2Bundle

import l0prune
from l0prune import ConfigError, DataError, RunError

Make = Callable[..., SpeechEncoder]


class Bundle(Wav2Vec2Bundle):
    """A bundle whose download is random weights."""

    def _get_state_dict(self, dl_kwargs: object) -> dict[str, Tensor]:
        torch.manual_seed(5)
        return wav2vec2_model(**self._params).state_dict()


class RelativeBundle(Wav2Vec2Bundle):
    """The same of WavLM."""

    def _get_state_dict(self, dl_kwargs: object) -> dict[str, Tensor]:
        torch.manual_seed(5)
        return wavlm_model(**self._params).state_dict()

    def get_model(self, *, dl_kwargs: object = None) -> nn.Module:
        model = wavlm_model(**self._params)
        model.load_state_dict(self._get_state_dict({}))
        return model.eval()


def test_a_wavlm_bundle_gives_torchaudios_own_features(
    monkeypatch: pytest.MonkeyPatch, encoder_config: dict[str, Any]
) -> None:
    config = {**encoder_config, "encoder_num_buckets": 16, "encoder_max_distance": 30}
    bundle = RelativeBundle("", config, 16_000.0, False, "WavLM")
    monkeypatch.setattr(teachers, "bundles_by_name", lambda: {"SMALL": bundle})
    teacher = load_teacher("SMALL")
    waveforms = torch.randn(2, 1_600)
    with torch.no_grad():
        expected, got = (model.extract_features(waveforms)[0] for model in (bundle.get_model(), teacher.encoder))
    assert teacher.config["family"] == "wavlm"
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_bundle_gives_torchaudios_own_features(
    monkeypatch: pytest.MonkeyPatch, encoder_config: dict[str, Any], normalize: bool
) -> None:
    bundle = Bundle("", encoder_config, 16_000.0, normalize, "Wav2Vec2")
    monkeypatch.setattr(teachers, "bundles_by_name", lambda: {"SMALL": bundle})
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
    monkeypatch.setattr(teachers, "bundles_by_name", lambda: {"SMALL": bundle})
    teacher = load_teacher("SMALL")
    assert teacher.encoder.aux is None
    assert teacher.config["aux_num_out"] is None


def test_every_bundle_of_the_families_is_offered() -> None:
    bundles = teachers.bundles_by_name()
    assert {"HUBERT_BASE", "HUBERT_LARGE", "HUBERT_XLARGE", "WAV2VEC2_BASE", "WAV2VEC2_XLSR_300M"} <= set(bundles)
    assert {"WAVLM_BASE", "WAVLM_BASE_PLUS", "WAVLM_LARGE"} <= set(bundles)
    assert all(isinstance(bundle, Wav2Vec2Bundle | Wav2Vec2ASRBundle) for bundle in bundles.values())
    assert torchaudio.pipelines.HUBERT_BASE is bundles["HUBERT_BASE"]


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch, encoder_config: dict[str, Any]) -> None:
    def fail(self: Bundle, dl_kwargs: object) -> dict[str, Tensor]:
        raise URLError("no route")

    monkeypatch.setattr(Bundle, "_get_state_dict", fail)
    bundle = Bundle("", encoder_config, 16_000.0, False, "Wav2Vec2")
    monkeypatch.setattr(teachers, "bundles_by_name", lambda: {"SMALL": bundle})
    with pytest.raises(DataError, match="cannot download the teacher: SMALL"):
        load_teacher("SMALL")


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    foreign, damaged = tmp_path / "foreign.safetensors", tmp_path / "damaged.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    damaged.write_bytes(b"\x00" * 100)
    with pytest.raises(DataError, match=r"not a checkpoint of a known format: .*got safetensors of format none"):
        load_teacher(str(foreign))
    with pytest.raises(DataError, match="damaged safetensors file"):
        load_teacher(str(damaged))
    with pytest.raises(ConfigError, match="no such teacher"):
        load_teacher(str(tmp_path / "missing.safetensors"))


FORMS = ("teacher", "dphubert", "diarizen", "huggingface", "s3prl")


def write(encoder: SpeechEncoder, form: str, path: Path) -> None:
    checkpoint = from_encoder(encoder)
    match form:
        case "teacher":
            config = {key: value for key, value in encoder.config.items() if key != "normalize_waveform"}
            metadata = {"format": "l0prune-speech-teacher", "config": json.dumps(config), "normalize_waveform": "true"}
            save_file(encoder.state_dict(), path, metadata=metadata)
        case "s3prl":
            path.mkdir()
            to_s3prl(checkpoint, path)
        case "dphubert":
            to_dphubert(checkpoint, path)
        case "diarizen":
            to_diarizen(checkpoint, path)
        case "huggingface":
            path.mkdir()
            to_huggingface(checkpoint, path, "card")


@pytest.mark.parametrize("name", ["teacher", "teacher.pt", "model.bin", "x.pth"])
@pytest.mark.parametrize("form", FORMS)
def test_the_format_is_told_by_content(make_encoder: Make, tmp_path: Path, form: str, name: str) -> None:
    encoder = make_encoder(3, normalize_waveform=True)
    write(encoder, form, tmp_path / name)
    teacher = load_teacher(str(tmp_path / name))
    waveforms = torch.randn(1, 1_600)
    with torch.no_grad():
        expected, got = (model.hidden_states(waveforms) for model in (encoder, teacher.encoder))
    assert all(torch.equal(one, other) for one, other in zip(expected, got, strict=True))
    assert teacher.encoder.normalize_waveform is True


def same(encoder: SpeechEncoder, path: Path) -> bool:
    """Whether a path holds the same network."""
    other, waveforms = load_teacher(str(path)).encoder, torch.randn(1, 1_600)
    with torch.no_grad():
        pairs = zip(encoder.hidden_states(waveforms), other.hidden_states(waveforms), strict=True)
        return all(torch.equal(*pair) for pair in pairs)


def test_files_of_a_hugging_face_folder_find_what_is_beside_them(make_encoder: Make, tmp_path: Path) -> None:
    encoder, folder = make_encoder(3), tmp_path / "hf"
    write(encoder, "huggingface", folder)
    assert same(encoder, folder / "model.safetensors")
    assert same(encoder, folder / "config.json")
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    assert same(encoder, folder / "pytorch_model.bin")
    # The file that is named is the one that is read.
    other = make_encoder(4)
    write(other, "huggingface", tmp_path / "other")
    torch.save(load_file(tmp_path / "other" / "model.safetensors"), folder / "best.bin")
    assert same(other, folder / "best.bin")
    assert same(encoder, folder)
    (folder / "config.json").unlink()
    hint = r"bare weights say nothing of heads and strides: put the config\.json of transformers beside them"
    for name in ("model.safetensors", "pytorch_model.bin"):
        with pytest.raises(DataError, match=hint):
            load_teacher(str(folder / name))


def test_files_of_a_run_find_what_is_beside_them(make_encoder: Make, tmp_path: Path) -> None:
    encoder = make_encoder(3)
    gated = l0prune.GatedModel(encoder, encoder_groups(encoder), target_sparsity=0.2).eval()
    student, plan = gated.pruned()
    l0prune.save(student, plan, tmp_path / "run", plugin="speech", architecture=encoder.config)
    for name in ("", "model.safetensors", "model.json"):
        assert same(student.eval(), tmp_path / "run" / name)  # type: ignore[arg-type]


def test_files_of_an_s3prl_export_are_read(make_encoder: Make, tmp_path: Path) -> None:
    encoder = make_encoder(3)
    write(encoder, "s3prl", tmp_path / "upstream")
    assert same(encoder, tmp_path / "upstream" / "model.pt")
    (tmp_path / "upstream" / "model.pt").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=r"damaged checkpoint, or not one of torch: .*model\.pt"):
        load_teacher(str(tmp_path / "upstream"))
    torch.save({"config": {}}, tmp_path / "upstream" / "model.pt")
    with pytest.raises(DataError, match=r"not the model\.pt of an s3prl export"):
        load_teacher(str(tmp_path / "upstream"))


def test_settings_without_weights_say_what_to_give(tmp_path: Path) -> None:
    for name in ("config.json", "config.toml"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="not an encoder of these families"):
        load_teacher(str(tmp_path / "config.json"))
    with pytest.raises(DataError, match=r"a file of settings holds no weights: .*config\.toml; give its folder"):
        load_teacher(str(tmp_path / "config.toml"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache with nothing in it, and no network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_id_is_read_through_the_hubs_cache(
    make_encoder: Make, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    repository, commit = hub / "models--someone--small-hubert", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    encoder = make_encoder(3)
    write(encoder, "huggingface", repository / "snapshots" / commit)
    download = functools.partial(huggingface_hub.snapshot_download, cache_dir=hub, local_files_only=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    teacher = load_teacher("someone/small-hubert")
    waveforms = torch.randn(1, 1_600)
    with torch.no_grad():
        assert torch.equal(encoder(waveforms)[0], teacher.encoder(waveforms)[0])
    with pytest.raises(DataError, match="no such model on the Hugging Face hub: someone/other"):
        load_teacher("someone/other")


def test_what_is_no_teacher_is_one_line(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(2)}, tmp_path / "bare.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"not a checkpoint of a known.*got encoder\.weight.*bare weights say nothing"):
        load_teacher(str(tmp_path / "bare.pt"))
    with pytest.raises(DataError, match=r"not a checkpoint of a known format.*got list"):
        load_teacher(str(tmp_path / "list.pt"))
    with pytest.raises(DataError, match=r"no checkpoint of a known format in the folder: .*got nothing"):
        load_teacher(str(tmp_path / "empty"))
    # A run that has only begun.
    (tmp_path / "empty" / "config.toml").write_text("")
    with pytest.raises(RunError, match=r"the run has no model yet: .*empty; finish it with --resume"):
        load_teacher(str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"no such teacher.*did you mean 'HUBERT_BASE'"):
        load_teacher("HUBERT_BAS")
    for name in ("x" * 5_000, "nothing", "some/where/else"):
        with pytest.raises(ConfigError, match="no such teacher") as caught:
            load_teacher(name)
        assert len(str(caught.value)) < 400
