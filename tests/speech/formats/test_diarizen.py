"""DiariZen's folders: config.toml and the bare tensors of a whole diarization model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats import diarizen
from l0prune_speech.formats.checkpoint import from_encoder
from l0prune_speech.formats.diarizen import _HEADS, to_diarizen
from l0prune_speech.formats.teachers import load_teacher
from torch import Tensor

from l0prune import DataError

Make = Callable[..., SpeechEncoder]
States = Callable[[SpeechEncoder], list[Tensor]]
POSITIONS = {"encoder_max_distance": 800}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a model with an encoder, which its config.toml calls by a name."""

    def make(encoder: SpeechEncoder, source: str = "wavlm_base", **more: Tensor) -> Path:
        folder = tmp_path / "hub"
        folder.mkdir()
        to_diarizen(from_encoder(encoder), tmp_path / "encoder.bin")
        tensors = torch.load(tmp_path / "encoder.bin", weights_only=True)["state_dict"]
        whole = {f"wavlm_model.{name}": tensor for name, tensor in tensors.items()}
        torch.save({**whole, "classifier.weight": torch.zeros(2, 2), **more}, folder / "pytorch_model.bin")
        (folder / "config.toml").write_text(f'[model.args]\nwavlm_src = "{source}"\n')
        return folder

    return make


def same(encoder: SpeechEncoder, path: Path, states: States) -> bool:
    pairs = zip(states(encoder), states(load_teacher(str(path)).encoder), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("kind", ["wavlm-base", "wavlm-large"])
def test_a_dense_encoder_is_read_off_its_tensors(
    make_dense: Make, write: Callable[..., Path], states: States, kind: str
) -> None:
    encoder = make_dense(kind, **POSITIONS, extractor_conv_bias=False)
    folder = write(encoder)
    for name in ("", "pytorch_model.bin", "config.toml"):
        assert same(encoder, folder / name, states)
    teacher = load_teacher(str(folder))
    assert teacher.config["encoder_num_heads"] == 4
    assert teacher.notes == ("left out what is not wavlm_model: 1 tensors",)


@pytest.mark.parametrize("emptied", [(), ("1.attention", "0.feed_forward")], ids=["full", "emptied"])
def test_the_heads_of_a_pruned_encoder_are_those_of_its_name_or_file(
    make_student: Make,
    write: Callable[..., Path],
    states: States,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    emptied: tuple[str, ...],
) -> None:
    student = make_student("wavlm-base", emptied, **POSITIONS)
    folder = write(student, "wavlm_small")
    with pytest.raises(DataError, match=r"nothing says which heads are left: .*config\.toml .*= wavlm_small"):
        load_teacher(str(folder))
    heads = from_encoder(student).config["encoder_remaining_heads"]
    monkeypatch.setitem(diarizen._HEADS, "wavlm_small", "|".join(" ".join(map(str, left)) for left in heads))
    assert same(student, folder, states)
    (folder / "config.toml").write_text(f'[model.args]\nwavlm_src = "{tmp_path / "encoder.bin"}"\n')
    assert same(student, folder, states)
    (folder / "config.toml").write_text("[model]\n")
    with pytest.raises(DataError, match=r"config\.toml does not name the encoder.*no 'args'"):
        load_teacher(str(folder))


def test_tensors_of_something_else_are_one_line(make_dense: Make, write: Callable[..., Path]) -> None:
    folder = write(make_dense("wavlm-base", **POSITIONS))
    torch.save({"classifier.weight": torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="no WavLM of DiariZen among the tensors"):
        load_teacher(str(folder))


@pytest.mark.parametrize(("name", "total", "left"), [("wavlm_base_s80_md", 12, 27), ("wavlm_large_s80_md", 16, 90)])
def test_published_heads_are_indices_of_the_dense_network(name: str, total: int, left: int) -> None:
    layers = [[int(head) for head in layer.split()] for layer in _HEADS[name].split("|")]
    assert len(layers) == {12: 12, 16: 24}[total]
    assert all(layer == sorted(set(layer)) and set(layer) <= set(range(total)) for layer in layers)
    assert sum(map(len, layers)) == left
