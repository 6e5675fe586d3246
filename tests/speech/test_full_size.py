"""Encoders at full size, with random weights."""

import collections
import itertools
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
import torch
import torchaudio
import transformers
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder, build_encoder
from l0prune_speech.formats import teachers
from l0prune_speech.formats.checkpoint import from_encoder, to_encoder
from l0prune_speech.formats.dphubert import from_dphubert, to_dphubert
from l0prune_speech.formats.huggingface import to_huggingface
from l0prune_speech.formats.pickled import read_pickled
from l0prune_speech.formats.teachers import load_teacher
from l0prune_speech.formats.torchaudio_names import from_torchaudio
from torch import Tensor
from torchaudio.models import Wav2Vec2Model

import l0prune
from l0prune import GateConfig, GatedModel, relative_difference
from l0prune.size.parameters import parameter_size

SIZES = {
    "HUBERT_BASE": (94_370_944, 0.75),
    "WAVLM_BASE_PLUS": (94_381_168, 0.75),
    "HUBERT_LARGE": (315_434_112, 0.70),
}
LEAST = 1 - 0.0003


LENGTHS = torch.tensor([8_000, 6_000])
CLIPS = (
    torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0)) * (torch.arange(8_000) < LENGTHS[:, None]),
    LENGTHS,
)
"""Waveforms (2, samples), zero behind their ends, and their lengths."""


@pytest.fixture(autouse=True)
def _quickly_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights are a million numbers over and over, from another place on for each tensor.

    To draw hundreds of millions anew for each network that is built, and most are given other weights next, takes
    longer than all that is tested.
    """
    drawn = 0.05 * torch.randn(2**20 + 7, generator=torch.Generator().manual_seed(0))
    places = itertools.count(1)

    def fill(tensor: Tensor, *_arguments: object, **_settings: object) -> Tensor:
        if not tensor.is_meta:
            source, values = drawn.roll(104_729 * next(places) % len(drawn)), torch.empty(tensor.numel())
            for part in values.split(len(drawn)):
                part.copy_(source[: len(part)])
            with torch.no_grad():
                tensor.copy_(values.view(tensor.shape))
        return tensor

    for name in ("uniform_", "normal_", "kaiming_uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, fill)


def make_torchaudios(name: str) -> Wav2Vec2Model:
    """torchaudio's own encoder of a bundle, with random weights."""
    torch.manual_seed(0)
    make = torchaudio.models.wavlm_model if name.startswith("WAVLM") else torchaudio.models.wav2vec2_model
    return make(**getattr(torchaudio.pipelines, name)._params)


def bundled(name: str, tensors: dict[str, Tensor]) -> SpeechEncoder:
    """The encoder of a bundle whose weights are these, through the same path as its download takes."""
    bundle = getattr(torchaudio.pipelines, name)
    config = {**bundle._params, "normalize_waveform": bundle._normalize_waveform}
    return to_encoder(from_torchaudio(tensors, config), name)


def states(encoder: SpeechEncoder) -> list[Tensor]:
    with torch.no_grad():
        return encoder.hidden_states(CLIPS[0], None, CLIPS[1])


@pytest.mark.parametrize("name", list(SIZES))
def test_accounting_target_and_round_trips(
    tmp_path: Path, published_shapes: Callable[..., dict[str, tuple[int, ...]]], name: str
) -> None:
    total, target = SIZES[name]
    encoder = bundled(name, make_torchaudios(name).state_dict())
    config = GateConfig(drop_rates={"ffn": 0.5})
    gated = GatedModel(encoder, encoder_groups(encoder), target_sparsity=target, config=config).eval()
    assert gated.size_model.total == total
    with torch.no_grad():
        gated.gates.log_alpha.copy_(2 * torch.randn_like(gated.gates.log_alpha))
    student, plan = gated.pruned()
    assert isinstance(student, SpeechEncoder)
    kept = sum(parameter.numel() for parameter in student.parameters())
    assert total * (1 - target) * LEAST <= kept <= total * (1 - target)
    expected = states(student)
    l0prune.save(student, plan, tmp_path / "run", plugin="speech", architecture=encoder.config)
    loaded = l0prune.load(tmp_path / "run")
    assert isinstance(loaded, SpeechEncoder)
    to_dphubert(from_encoder(student), tmp_path / "student.pth")
    content = read_pickled(tmp_path / "student.pth")
    # The published class, built from this configuration, holds the same and a factor for each channel that is last.
    shapes = published_shapes(content["config"])
    assert {name: tuple(tensor.shape) for name, tensor in content["state_dict"].items()} == shapes
    channels = content["config"]["extractor_conv_layer_config"][-1][0]
    assert sum(map(prod, shapes.values())) == kept + channels
    exported = to_encoder(from_dphubert(content, "student.pth"), "student.pth")
    for again in (loaded, exported):
        assert all(torch.equal(one, other) for one, other in zip(expected, states(again), strict=True))


# transformers' WavLM gives torch masks of two types.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("name", ["HUBERT_BASE", "WAVLM_BASE_PLUS", "WAV2VEC2_BASE"])
def test_a_teacher_goes_out_and_comes_back_the_same(tmp_path: Path, name: str) -> None:
    theirs = make_torchaudios(name).eval()
    teacher = bundled(name, theirs.state_dict())
    with torch.no_grad():
        # torchaudio's WavLM takes no lengths.
        layers, ours = (model.extract_features(CLIPS[0])[0] for model in (theirs, teacher))
    assert relative_difference(layers, ours) <= 1e-5
    del theirs, layers, ours
    expected, checkpoint = states(teacher), from_encoder(teacher)
    (tmp_path / "hf").mkdir()
    to_huggingface(checkpoint, tmp_path / "hf", "card")
    to_dphubert(checkpoint, tmp_path / "teacher.pth")
    for path in (tmp_path / "hf", tmp_path / "teacher.pth"):
        back = load_teacher(str(path)).encoder
        assert all(torch.equal(one, other) for one, other in zip(expected, states(back), strict=True))
    # Across layouts: transformers' own class, with the padding behind each clip masked.
    model = transformers.AutoModel.from_pretrained(tmp_path / "hf").eval()
    mask = (torch.arange(CLIPS[0].shape[1]) < CLIPS[1][:, None]).long()
    with torch.no_grad():
        outputs = model(CLIPS[0], attention_mask=mask, output_hidden_states=True)
    assert relative_difference(expected[1:-1], list(outputs.hidden_states[1:-1])) <= 1e-5


BUNDLES = sorted(teachers.bundles_by_name())


@pytest.mark.parametrize("name", BUNDLES)
def test_every_bundle_of_the_families_has_its_place_at_full_size(name: str) -> None:
    """Names, shapes and counts of each, up to the two billion parameters of XLS-R, without their weights."""
    with torch.device("meta"):
        tensors = make_torchaudios(name).state_dict()
    bundle = getattr(torchaudio.pipelines, name)
    config = {**bundle._params, "normalize_waveform": bundle._normalize_waveform}
    read = from_torchaudio(tensors, config)
    with torch.device("meta"):
        encoder = build_encoder(read.config)
    shapes = {key: tensor.shape for key, tensor in encoder.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in read.tensors.items()}
    total = sum(parameter.numel() for parameter in encoder.parameters())
    assert total == sum(tensor.numel() for key, tensor in tensors.items() if not key.startswith("aux."))
    groups = encoder_groups(encoder)
    kinds = collections.Counter(group.kind for group in groups)
    assert kinds == {"conv": 7, "head": config["encoder_num_layers"], "ffn": config["encoder_num_layers"]}
    assert parameter_size(encoder, groups).total == total


def test_groups_fit_torchaudios_own_class(tmp_path: Path) -> None:
    encoder = torchaudio.models.hubert_base().eval()
    gated = GatedModel(encoder, encoder_groups(encoder), target_sparsity=0.75).eval()
    with torch.no_grad():
        gated.gates.log_alpha.copy_(2 * torch.randn_like(gated.gates.log_alpha))
    pruned, plan = gated.pruned()
    waveforms, lengths = torch.randn(2, 8_000), torch.tensor([8_000, 6_000])
    with torch.no_grad():
        expected = pruned.extract_features(waveforms, lengths)
        l0prune.save(pruned, plan, tmp_path)
        loaded = l0prune.load(tmp_path, torchaudio.models.hubert_base)
        got = loaded.extract_features(waveforms, lengths)  # type: ignore[operator]
    assert all(torch.equal(one, other) for one, other in zip(expected[0], got[0], strict=True))
    assert torch.equal(expected[1], got[1])
