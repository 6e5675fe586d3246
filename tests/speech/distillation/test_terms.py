"""Distillation terms against their formulas written out in float64, and what may be registered."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from l0prune_speech.distillation import all_terms
from l0prune_speech.distillation.distances import over_clips
from l0prune_speech.distillation.objective import PUBLISHED, Distillation
from l0prune_speech.distillation.terms import Term, check_weights, distance, register_term
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.options import SpeechOptions
from torch import Tensor, nn

from l0prune import ConfigError

Make = Callable[..., SpeechEncoder]


def cosines(student: Tensor, teacher: Tensor) -> Tensor:
    return (student * teacher).sum(-1) / (student.norm(dim=-1) * teacher.norm(dim=-1))


def gram(student: Tensor, teacher: Tensor) -> Tensor:
    batch, frames, width = student.shape
    total = torch.zeros((), dtype=student.dtype)
    for b in range(batch):
        for one in range(frames):
            for other in range(frames):
                mine = sum(student[b, one, d] * student[b, other, d] for d in range(width)) / width
                theirs = sum(teacher[b, one, e] * teacher[b, other, e] for e in range(teacher.shape[-1]))
                total = total + (mine - theirs / teacher.shape[-1]) ** 2
    return total / (batch * frames * frames)


def gram_step(student: Tensor, teacher: Tensor) -> Tensor:
    batch, frames, _, width = student.shape
    total = torch.zeros((), dtype=student.dtype)
    for b in range(batch):
        for one in range(frames):
            for other in range(frames):
                mine = sum(student[b, one, 0, d] * student[b, other, 1, d] for d in range(width)) / width
                theirs = sum(teacher[b, one, 0, e] * teacher[b, other, 1, e] for e in range(teacher.shape[-1]))
                total = total + (mine - theirs / teacher.shape[-1]) ** 2
    return total / (batch * frames * frames)


def divergence_of_rows(student: Tensor, teacher: Tensor) -> Tensor:
    batch, queries, keys = student.shape
    total = torch.zeros((), dtype=student.dtype)
    for b in range(batch):
        for query in range(queries):
            for key in range(keys):
                total = total + teacher[b, query, key] * torch.log(teacher[b, query, key] / student[b, query, key])
    return total / (batch * queries)


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    batch, frames, _ = student.shape
    total = torch.zeros((), dtype=student.dtype)
    for b in range(batch):
        for frame in range(frames):
            total = total + student[b, frame].exp().sum().log() - student[b, frame, teacher[b, frame]]
    return total / (batch * frames)


def divergence_of_logits(student: Tensor, teacher: Tensor) -> Tensor:
    return divergence_of_rows(student.softmax(-1), teacher.softmax(-1))


PLAIN: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda student, teacher: (student - teacher).abs().mean(),
    "l2": lambda student, teacher: (student - teacher).square().mean(),
    "cosine": lambda student, teacher: 1 - cosines(student, teacher).mean(),
    "cosine_log_sigmoid": lambda student, teacher: torch.log1p(torch.exp(-cosines(student, teacher))).mean(),
    "gram": gram,
    "gram_step": gram_step,
    "attention": divergence_of_rows,
    "value_relation": divergence_of_rows,
    "cluster_means": lambda student, teacher: (student - teacher).abs().mean() + 1 - cosines(student, teacher).mean(),
    "units": cross_entropy,
    "masked_units": cross_entropy,
    "logits": divergence_of_logits,
}
UNIT_TERMS = ("units", "masked_units")


def told(name: str, clips: int = 2, frames: int = 5) -> tuple[Tensor, Tensor]:
    """What a term is told of a student and its teacher, by its kind."""
    between = all_terms()[name].between
    shape = {"steps": (2, 6), "maps": (frames,), "value_relations": (frames,), "logits": (7,)}.get(between, (6,))
    student, teacher = (torch.randn(clips, frames, *shape, dtype=torch.float64) for _ in range(2))
    if between in ("maps", "value_relations"):
        return student.softmax(-1), teacher.softmax(-1)
    return (student, torch.randint(6, (clips, frames))) if name in UNIT_TERMS else (student, teacher)


def test_every_term_has_a_plain_form_here() -> None:
    assert set(PLAIN) == set(all_terms())
    assert all(term.source for term in all_terms().values())


@pytest.mark.parametrize("name", list(PLAIN))
def test_a_term_is_its_formula(name: str) -> None:
    student, teacher = told(name)
    got = all_terms()[name].distance(student, teacher)
    torch.testing.assert_close(got, PLAIN[name](student, teacher), rtol=1e-12, atol=1e-12)
    if name not in UNIT_TERMS:
        least = math.log1p(math.exp(-1)) if name == "cosine_log_sigmoid" else 0
        assert all_terms()[name].distance(teacher, teacher).item() == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("name", list(PLAIN))
def test_gradients_agree_with_finite_differences(name: str) -> None:
    student, teacher = told(name, clips=1, frames=4)
    assert torch.autograd.gradcheck(lambda one: all_terms()[name].distance(one, teacher), student.requires_grad_())


@pytest.mark.parametrize("name", list(PLAIN))
def test_padding_counts_in_no_term(name: str) -> None:
    """A padded batch is the mean of its clips alone, each weighted by its frames, whatever stands in the padding."""
    student, teacher = told(name, clips=3, frames=6)
    counts = [6, 2, 4]
    frames = torch.arange(6) < torch.tensor(counts)[:, None]
    term = all_terms()[name]
    if term.between in ("maps", "value_relations"):
        student, teacher = (tensor * frames[:, None] for tensor in (student, teacher))
        student, teacher = (tensor / tensor.sum(-1, keepdim=True) for tensor in (student, teacher))
    alone = [
        term.distance(student[clip : clip + 1, :count], teacher[clip : clip + 1, :count]) * count
        for clip, count in enumerate(counts)
    ]
    got = over_clips(term.distance, student, teacher, frames, framewise=term.framewise)
    torch.testing.assert_close(got, torch.stack(alone).sum() / sum(counts), rtol=1e-12, atol=1e-12)
    other = student.clone()
    other[~frames] = 9.0
    assert torch.equal(over_clips(term.distance, other, teacher, frames, framewise=term.framewise), got)


def test_keys_that_are_padding_count_in_no_relation() -> None:
    student, teacher = told("attention", clips=1, frames=4)
    padded = [torch.cat([tensor, torch.zeros(1, 4, 3)], dim=-1) for tensor in (student, teacher)]
    distance_of_rows = all_terms()["attention"].distance
    torch.testing.assert_close(distance_of_rows(*padded), distance_of_rows(student, teacher), rtol=1e-12, atol=1e-12)


def test_gram_matrices_compare_states_of_different_widths() -> None:
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    term = all_terms()["gram"]
    assert not term.projected
    torch.testing.assert_close(term.distance(student, teacher), gram(student, teacher), rtol=1e-12, atol=1e-12)
    # A rotation of the features is another student with the same relations between frames.
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    assert term.distance(teacher @ rotation, teacher).item() == pytest.approx(0, abs=1e-12)


def test_terms_are_weighted_and_summed() -> None:
    own, projected, teacher = torch.randn(2, 5, 3), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    weights = {"l1": 0.5, "cosine": 2.0, "l2": 0.0, "gram": 3.0}
    expected = 0.5 * PLAIN["l1"](projected, teacher) + 2 * PLAIN["cosine"](projected, teacher) + 3 * gram(own, teacher)
    torch.testing.assert_close(distance(own, projected, teacher, weights), expected)
    published = (projected - teacher).abs().mean() + 1 - cosines(projected, teacher).mean()
    torch.testing.assert_close(distance(own, projected, teacher, PUBLISHED), published)


def test_distances_are_computed_in_float32_at_least() -> None:
    own, teacher = torch.randn(1, 3, 4).bfloat16(), torch.randn(1, 3, 4)
    got = distance(own, own, teacher, {**PUBLISHED, "gram": 1.0})
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, distance(own.float(), own.float(), teacher, {**PUBLISHED, "gram": 1.0}))


@pytest.mark.parametrize("mode", ["layers", "prediction"])
def test_a_term_gets_the_state_that_it_needs(make_encoder: Make, mode: str) -> None:
    seen: dict[str, list[Tensor]] = {"own": [], "projected": []}

    def watch(name: str) -> Callable[[Tensor, Tensor], Tensor]:
        def term(student: Tensor, teacher: Tensor) -> Tensor:
            seen[name].append(student)
            assert teacher.shape[-1] == 8
            return student.mean()

        return term

    for name in seen:
        register_term(Term(name=name, distance=watch(name), source="here", projected=name == "projected"))
    student = make_encoder()
    objective = Distillation(student, make_encoder(1), layers=(1, 3), mode=mode, weights={"own": 1.0, "projected": 1.0})
    with torch.no_grad():
        for projection in objective.projections.values():
            nn.init.zeros_(projection.bias if mode == "layers" else projection[0].bias)  # type: ignore[arg-type, index]
    waveforms = torch.randn(2, 800)
    objective.eval()(waveforms)
    states = student.hidden_states(waveforms)
    own = [states[1], states[3]] if mode == "layers" else [states[3], states[3]]
    for one, other in zip(seen["own"], own, strict=True):
        assert torch.equal(one, other)
    keys = ("others", "others") if mode == "layers" else ("1", "3")
    for one, state, key in zip(seen["projected"], own, keys, strict=True):
        assert torch.equal(one, objective.projections[key](state))


def test_settings_become_weights() -> None:
    assert SpeechOptions().term_weights() == {"l1": 1.0, "l2": 0.0, "cosine": 1.0}
    forms = SpeechOptions(cosine_form="log_sigmoid", cosine_weight=0.5, l2_weight=2.0)
    assert forms.term_weights() == {"l1": 1.0, "l2": 2.0, "cosine_log_sigmoid": 0.5}
    table = SpeechOptions(terms={"gram": 0.1, "l1": 0.0})
    assert table.term_weights() == {"l1": 0.0, "l2": 0.0, "cosine": 1.0, "gram": 0.1}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"l1": -1.0}, r"weight out of range: speech\.terms\.l1 \(got -1\.0"),
        ({"l1": float("nan")}, "weight out of range"),
        ({"l1": 0.0, "cosine": 0.0}, "nothing to minimise"),
        ({"gramm": 1.0}, r"no such term: speech\.terms\.gramm; did you mean 'gram'"),
    ],
)
def test_bad_weights_are_refused(weights: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_weights(weights)


def test_only_terms_with_a_free_name_are_registered() -> None:
    term = Term(name="l1", distance=nn.functional.l1_loss, source="here")
    with pytest.raises(ConfigError, match=r"the name of the term is taken.*got l1.*replace=True"):
        register_term(term)
    assert register_term(term, replace=True) is all_terms()["l1"]
    with pytest.raises(ConfigError, match="the term has no name"):
        register_term(Term(name="", distance=nn.functional.l1_loss, source="here"))
    with pytest.raises(ConfigError, match=r"nothing of this name is compared: mine \(got moods, expected states, "):
        register_term(Term(name="mine", distance=nn.functional.l1_loss, source="here", between="moods"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not a term"):
        register_term(nn.functional.l1_loss)  # type: ignore[arg-type]
