"""Bisection finds exactly those that are to blame, in few trials."""

from hypothesis import given
from hypothesis import strategies as st

from l0prune.proof.bisection import guilty


@given(count=st.integers(0, 40), wrong=st.sets(st.integers(0, 39)))
def test_those_that_are_wrong_on_their_own_are_found(count: int, wrong: set[int]) -> None:
    trials: list[list[int]] = []

    def objection(some: list[int]) -> str:
        trials.append(some)
        return " ".join(str(one) for one in some if one in wrong)

    found = guilty(range(count), objection)
    assert found == [(one, str(one)) for one in range(count) if one in wrong]
    # Each of them costs a path down to it, and a neighbour on each level.
    assert len(trials) <= 1 + len(found) * 2 * max(1, count).bit_length()


@given(pairs=st.sets(st.integers(0, 9)))
def test_of_two_that_do_not_go_together_the_first_is_accepted(pairs: set[int]) -> None:
    def objection(some: list[int]) -> str:
        return "together" if any({2 * p, 2 * p + 1} <= set(some) for p in pairs) else ""

    found = dict(guilty(range(20), objection))
    assert set(found) == {2 * p + 1 for p in pairs}
    assert not objection([one for one in range(20) if one not in found])


@given(count=st.integers(0, 400))
def test_a_kind_that_always_fails_costs_few_trials(count: int) -> None:
    trials: list[int] = []

    def objection(some: list[int]) -> str:
        trials.append(len(some))
        return "odd" if any(one % 2 for one in some) else ""

    found = guilty(range(count), objection, kind=lambda one: one % 2)
    assert sorted(found) == [(one, "odd") for one in range(count) if one % 2]
    assert len(trials) <= 1 + 5 * 2 * max(1, count).bit_length()


def test_a_kind_of_which_one_is_accepted_is_tried_one_by_one() -> None:
    def objection(some: list[int]) -> str:
        return "wrong" if any(one != 0 for one in some) else ""

    tried: list[int] = []

    def seen(some: list[int]) -> str:
        tried.extend(some)
        return objection(some)

    found = guilty(range(30), seen, kind=lambda one: "all")
    assert [one for one, _ in found] == list(range(1, 30))
    assert set(tried) == set(range(30))
