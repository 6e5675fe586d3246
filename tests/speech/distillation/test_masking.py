"""Spans of hidden frames."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from l0prune_speech.distillation.masking import masked_spans


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    probability=st.floats(0.01, 1.0),
    length=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_spans_lie_in_the_clip_and_leave_something_of_it(
    counts: list[int], probability: float, length: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = masked_spans(counts, max(counts), probability=probability, length=length, generator=generator)
    assert hidden.shape == (len(counts), max(counts))
    for row, count in zip(hidden, counts, strict=True):
        assert not row[count:].any()
        assert row[:count].any()
        assert count == 1 or not row[:count].all()
        # A run of hidden frames is a span at least, but where one frame was given back.
        runs = "".join("x" if one else " " for one in row[:count].tolist()).split()
        span = max(1, min(length, count // 2))
        assert sum(len(run) < span for run in runs) <= 2
    again = masked_spans(
        counts,
        max(counts),
        probability=probability,
        length=length,
        generator=torch.Generator().manual_seed(seed),
    )
    assert torch.equal(hidden, again)


def test_the_published_spans_hide_about_half_of_the_frames() -> None:
    """Spans that begin at 8 % of the frames and overlap leave 0.92^10 of them."""
    hidden = masked_spans([2000] * 50, 2000, probability=0.08, length=10, generator=torch.Generator().manual_seed(0))
    assert abs(hidden.float().mean().item() - (1 - 0.92**10)) < 0.01
