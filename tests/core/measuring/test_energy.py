"""Energy counters: added up, over their end, and a word where there are none."""

from pathlib import Path

import pytest
import torch

import l0prune
from l0prune.measuring import interleave
from l0prune.measuring.energy import energy_meter

CPU = torch.device("cpu")


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, and a part of one that is counted in it."""
    for name, title, value in (
        ("0", "package-0", 5_000_000),
        ("1", "package-1", 9_000_000),
        ("0:0", "core", 4_000_000),
    ):
        folder = tmp_path / f"intel-rapl:{name}"
        folder.mkdir()
        (folder / "name").write_text(f"{title}\n")
        (folder / "energy_uj").write_text(f"{value}\n")
        (folder / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path


def test_packages_are_added_and_go_on_after_their_end(powercap: Path) -> None:
    meter = energy_meter(CPU, powercap)
    assert "package-0, package-1" in meter.says
    assert meter.joules is not None
    assert meter.joules() == pytest.approx(14)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("500000")
    assert meter.joules() == pytest.approx(5 + 10.5)


def test_a_machine_that_does_not_tell_gets_a_word(powercap: Path, tmp_path: Path) -> None:
    nothing = energy_meter(CPU, tmp_path / "nowhere")
    assert nothing.joules is None
    assert nothing.says.startswith("not measured: no RAPL counters")
    (powercap / "intel-rapl:0" / "energy_uj").write_text("no number")
    broken = energy_meter(CPU, powercap)
    assert broken.joules is None
    assert broken.says.startswith("not measured: RAPL cannot be read")
    assert energy_meter(torch.device("meta")).joules is None


def test_each_run_is_charged_what_was_taken_meanwhile() -> None:
    taken = 0.0

    def run(joules: float) -> None:
        nonlocal taken
        taken += joules
        torch.randn(400, 400) @ torch.randn(400, 400)

    found = interleave(
        {"small": lambda: run(1.0), "large": lambda: run(3.0)}, seconds=0.0, least_rounds=3, joules=lambda: taken
    )
    for name, expected in (("small", 1.0), ("large", 3.0)):
        joules = found[name].joules
        assert joules is not None
        assert joules.tolist() == pytest.approx([expected] * 3)
    assert interleave({"one": lambda: run(1.0)}, seconds=0.0, least_rounds=1)["one"].joules is None


def test_a_measurement_says_whose_energy_it_is_and_how_long_the_first_call_took() -> None:
    found = l0prune.measure({"one": torch.nn.Linear(8, 8)}, torch.randn(2, 8), seconds=0.01)
    assert found.energy
    (row,) = found.rows
    assert row.first_ms is not None
    assert row.first_ms > 0
    assert (row.joules is None) is found.energy.startswith("not measured")
