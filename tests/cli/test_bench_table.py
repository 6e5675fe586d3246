"""The table of `l0prune bench`: in 80 columns, and nothing is said twice."""

from types import SimpleNamespace
from typing import Any

from l0prune_cli.tables import measurement_tables
from rich.console import Console


def row(model: str, **more: Any) -> SimpleNamespace:
    ratio = SimpleNamespace(median=1.234, low=1.2, high=1.26)
    given = {"load": "10 s", "batch": 1, "threads": 2, "dtype": "float32", "backend": "eager"}
    numbers = {"latency_ms": 123.456, "latency_p95_ms": 130.0, "spread": 0.03, "first_ms": 456.7, "joules": None}
    return SimpleNamespace(model=model, real_time_factor=0.0123, speedup=ratio, **{**given, **numbers, **more})


def shown(*rows: SimpleNamespace, **more: Any) -> list[str]:
    facts = {"parameters": 1_324_513, "macs": 10**9, "file_bytes": 5_000_000}
    measurement: Any = SimpleNamespace(
        processor="a processor",
        versions={"torch": "2.14"},
        models={each.model: facts for each in rows},
        rows=rows,
        **{"energy": "not measured: no RAPL counters", "notes": (), **more},
    )
    console = Console(width=80, record=True, force_terminal=False)
    with console.capture() as captured:
        for table in measurement_tables(measurement):
            console.print(table)
    return captured.get().splitlines()


def test_two_models_in_two_dtypes_fit_in_80_columns() -> None:
    lines = shown(row("embedded"), row("runs/base"), row("runs/base", dtype="int8"))
    assert all(len(line) <= 80 for line in lines)
    (last,) = [line for line in lines if "runs/base" in line and "int8" in line]
    for number in ("456.7", "123.5", "130", "0.0123", "1.23 (1.20 to 1.26)"):
        assert number in last
    text = " ".join(lines)
    # What is the same in all rows is said once.
    assert text.count("10 s") == text.count("eager") == 1
    assert "not measured: no RAPL counters" in " ".join(text.split())


def test_energy_has_a_column_where_there_is_any() -> None:
    assert " J " not in " ".join(shown(row("a"), row("b")))
    lines = shown(row("a", joules=1.5), row("b", joules=0.75), energy="RAPL")
    assert any("0.75" in line for line in lines)
