"""Units by k-means, clusters of layers, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from l0prune_speech.distillation.layer_clusters import LayerClusters
from l0prune_speech.distillation.survey import find_structure
from l0prune_speech.distillation.teacher_units import TeacherUnits, UnitHead, check_frames
from l0prune_speech.encoder.modules import SpeechEncoder
from torch import Tensor

from l0prune import ConfigError, DataError, RunError

Make = Callable[..., SpeechEncoder]


def blobs(frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Frames (1, frames, 5) around five far points, and which of them each is of."""
    which = torch.randint(5, (frames,), generator=generator)
    return (20 * torch.eye(5)[which] + torch.randn(frames, 5, generator=generator))[None], which


def found(chunks: int, seed: int = 0) -> TeacherUnits:
    units, generator = TeacherUnits((1,), 5, 5), torch.Generator().manual_seed(seed)
    for _ in range(chunks):
        units.add([blobs(4000, generator)[0]])
    units.find()
    return units


@pytest.mark.parametrize("chunks", [1, 2, 6])
def test_units_are_the_clusters_that_are_there_however_many_chunks_hold_them(chunks: int) -> None:
    units = found(chunks)
    assert units.known
    frames, which = blobs(500, torch.Generator().manual_seed(1))
    labels = units.labels(frames, 0)[0]
    # One unit a cluster, whatever its number.
    assert len({*zip(labels.tolist(), which.tolist(), strict=True)}) == 5
    assert torch.equal(found(chunks).centroids, units.centroids)


def test_a_label_is_the_nearest_centroid() -> None:
    units = TeacherUnits((0, 3), 7, 4)
    units.centroids.copy_(torch.randn(2, 7, 4))
    states = torch.randn(2, 9, 4)
    for number in range(2):
        got = units.labels(states, number).numpy()
        for b in range(2):
            for t in range(9):
                far = [float((states[b, t] - centroid).square().sum()) for centroid in units.centroids[number]]
                assert got[b, t] == int(np.argmin(far))


def test_logits_of_units_are_cosines_over_their_temperature() -> None:
    head, state = UnitHead(6, 4), torch.randn(2, 3, 6)
    projected = head.projection(state)
    for k in range(4):
        cosine = torch.nn.functional.cosine_similarity(projected, head.embeddings[k].expand(2, 3, -1), dim=-1)
        torch.testing.assert_close(head(state)[..., k], cosine / 0.1)


def test_too_few_frames_are_told_how_many_are_needed() -> None:
    check_frames(50, 5)
    words = r"too few frames for the units: .*got 49 frames for 5 units, expected 50 or more\); lower .* to 4"
    with pytest.raises(DataError, match=words):
        check_frames(49, 5)
    units = TeacherUnits((1,), 5, 5)
    units.add([torch.randn(1, 30, 5)])
    with pytest.raises(DataError, match="got 30 frames for 5 units"):
        units.find()


def test_saved_units_that_contradict_the_run_are_refused() -> None:
    saved = found(1).state_dict()
    fresh = TeacherUnits((1,), 5, 5)
    assert not fresh.known
    fresh.load_state_dict(saved)
    assert fresh.known
    assert torch.equal(fresh.centroids, saved["centroids"])
    with pytest.raises(RunError, match=r"saved units contradict the run.*got 1 x 5 x 5, expected 1 x 6 x 5"):
        TeacherUnits((1,), 6, 5).load_state_dict(saved)
    saved["centroids"] = saved["centroids"] * torch.nan
    with pytest.raises(RunError, match="got values not finite"):
        TeacherUnits((1,), 5, 5).load_state_dict(saved)


def test_alike_layers_are_in_one_cluster() -> None:
    """Against clusters that can be seen: layers 0 and 1, 2 to 4, and 5."""
    clusters, sources = LayerClusters(5, 3), torch.randn(3, 2, 50, 8)
    clusters.add([sources[source] + 0.1 * torch.randn(2, 50, 8) for source in (0, 0, 1, 1, 1, 2)])
    assert not clusters.known
    clusters.find()
    assert clusters.groups == ((0, 1), (2, 3, 4), (5,))
    other = LayerClusters(5, 3)
    other.load_state_dict(clusters.state_dict())
    assert other.groups == clusters.groups
    with pytest.raises(ConfigError, match=r"no such number of clusters.*got 7, expected 1 to 6"):
        LayerClusters(5, 7)


def test_a_survey_leaves_random_numbers_as_they_were(make_encoder: Make) -> None:
    teacher, units, clusters = make_encoder(1), TeacherUnits((2, 3), 3, 8), LayerClusters(3, 2)
    before = torch.get_rng_state()
    find_structure(teacher, [torch.ones(2, 2000).cumsum(1).sin()], units=units, clusters=clusters)
    assert torch.equal(torch.get_rng_state(), before)
    assert units.known
    assert sorted(layer for group in clusters.groups for layer in group) == [0, 1, 2, 3]
