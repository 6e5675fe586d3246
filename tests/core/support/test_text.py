"""Numbers as people read them."""

import pytest

from l0prune.support.text import counted, duration, listed, plain, quantity, score


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (quantity(0), "0"),
        (quantity(999_999), "999,999"),
        (quantity(12_345_678), "12.35 M"),
        (quantity(1_234_567_890_123), "1,234.57 G"),
        (duration(59.6), "1:00"),
        (duration(3_725), "1:02:05"),
        (plain(0.123456), "0.1235"),
        (plain(-20_664.4), "-20,664"),
        (score(0.9512, 0.00412), "0.9512 ± 0.0041"),
        (score(95.0, None), "95"),
        (counted(1, "thread"), "1 thread"),
        (counted(0, "thread"), "0 threads"),
        (counted(2_880, "unit"), "2,880 units"),
        (listed(["a", "b"], most=2), "a, b"),
        (listed("abc", most=2), "a, b and 1 more"),
    ],
)
def test_numbers(got: str, expected: str) -> None:
    assert got == expected
