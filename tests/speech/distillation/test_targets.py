"""The teacher's targets: the same whether computed or read, and never read from a damaged entry."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from l0prune_speech.distillation.objective import Distillation
from l0prune_speech.distillation.targets import TargetCache, Targets, check_room, teacher_digest
from l0prune_speech.encoder.modules import SpeechEncoder

from l0prune import DataError

Make = Callable[..., SpeechEncoder]
LAYERS = (0, 2)


class Counting(SpeechEncoder):
    """Counts its forward passes."""

    passes = 0

    def hidden_states(self, *args, **kwargs):
        Counting.passes += 1
        return super().hidden_states(*args, **kwargs)


@pytest.fixture
def teacher(make_encoder: Make) -> SpeechEncoder:
    encoder = make_encoder(1).eval().requires_grad_(False)
    encoder.__class__ = Counting
    Counting.passes = 0
    return encoder


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(2, 1600, generator=torch.Generator().manual_seed(5))


def test_targets_are_the_matched_layers_states(teacher: SpeechEncoder, batch: torch.Tensor) -> None:
    found = Targets(teacher, LAYERS)(batch, batch)
    states = teacher.hidden_states(batch)
    assert found.keys() == set(LAYERS)
    for layer, state in found.items():
        assert torch.equal(state, states[layer])
        assert not state.is_inference()


@pytest.mark.parametrize("precise", [True, False])
def test_what_was_kept_is_read_and_equal(
    precise: bool, teacher: SpeechEncoder, batch: torch.Tensor, tmp_path: Path
) -> None:
    targets = Targets(teacher, LAYERS, TargetCache(tmp_path, "one", 10**9))
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        first = targets(batch, batch)
        assert Counting.passes == 1
        # A new cache, as a later run has it.
        again = Targets(teacher, LAYERS, TargetCache(tmp_path, "one", 10**9))(batch.clone(), batch)
    assert Counting.passes == 1
    for layer in LAYERS:
        assert torch.equal(first[layer], again[layer])
        assert again[layer].dtype == (torch.float32 if precise else torch.bfloat16)
    if precise:
        assert torch.equal(first[2], teacher.hidden_states(batch)[2])


def test_the_objective_is_the_same_from_the_cache(
    make_encoder: Make, teacher: SpeechEncoder, batch: torch.Tensor, tmp_path: Path
) -> None:
    student = make_encoder(0).eval()
    without = Distillation(student, teacher, layers=LAYERS)
    kept = Distillation(student, teacher, layers=LAYERS, cache=TargetCache(tmp_path, "one", 10**9))
    expected = without(batch).total
    for _ in range(2):
        total = kept(batch).total
        total.backward()
        assert torch.equal(total, expected)


def test_other_content_has_another_name(teacher: SpeechEncoder, batch: torch.Tensor, tmp_path: Path) -> None:
    cache = TargetCache(tmp_path, "one", 10**9)
    other = batch.clone()
    other[1, 7] += 1e-3
    names = {
        cache.key(batch, torch.float32),
        cache.key(batch, torch.bfloat16),
        cache.key(other, torch.float32),
        cache.key(batch.view(1, -1), torch.float32),
        TargetCache(tmp_path, "two", 10**9).key(batch, torch.float32),
    }
    assert len(names) == 5


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_entry_is_made_anew(damage: str, teacher: SpeechEncoder, batch: torch.Tensor, tmp_path: Path) -> None:
    targets = Targets(teacher, LAYERS, TargetCache(tmp_path, "one", 10**9))
    first = targets(batch, batch)
    (entry,) = tmp_path.glob("*/*.npz")
    content = bytearray(entry.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    changed = {"flipped": bytes(content), "cut": bytes(content[:-30]), "empty": b"", "foreign": b"PK nonsense"}
    entry.write_bytes(changed[damage])
    again = targets(batch, batch)
    assert Counting.passes == 2
    assert all(torch.equal(first[layer], again[layer]) for layer in LAYERS)
    targets(batch, batch)
    assert Counting.passes == 2


def test_a_full_cache_takes_no_more(teacher: SpeechEncoder, batch: torch.Tensor, tmp_path: Path) -> None:
    room = TargetCache(tmp_path, "one", 10**9)
    Targets(teacher, LAYERS, room)(batch, batch)
    (entry,) = tmp_path.glob("*/*.npz")
    assert room.bytes == entry.stat().st_size
    full = TargetCache(tmp_path, "one", room.bytes + 100)
    Targets(teacher, LAYERS, full)(batch + 1, batch + 1)
    assert [*tmp_path.glob("*/*.npz")] == [entry]
    assert full.bytes == room.bytes


def test_digest_tells_teachers_and_layers_apart(make_encoder: Make) -> None:
    one, other = make_encoder(0), make_encoder(1)
    assert teacher_digest(one, LAYERS) == teacher_digest(make_encoder(0), LAYERS)
    assert len({teacher_digest(one, LAYERS), teacher_digest(other, LAYERS), teacher_digest(one, (0, 1))}) == 3


def test_too_little_disk_is_said_beforehand(tmp_path: Path) -> None:
    check_room(tmp_path / "not" / "there" / "yet", 1000)
    with pytest.raises(DataError, match=r"too little disk for the teacher's cache: .* free, expected .* GB\); lower"):
        check_room(tmp_path, 10**18)
    assert [*tmp_path.iterdir()] == []
