"""Tables in narrow terminals: no line is longer than the terminal, and no number is broken."""

from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from l0prune.adapters.console import fitted, make_console

pytestmark = pytest.mark.usefixtures("quick_probes", "loaded_here")


@pytest.fixture(params=[60, 80, 120])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def test_every_command_keeps_to_the_width(width: int, finished, bench, labelled_sound: Path, l0prune_call: Any) -> None:
    numbers = f"{finished.report['params_after']:,}"
    commands: list[tuple[list[object], tuple[str, ...]]] = [
        (["bench", finished.folder, "--seconds", "0.02", "--lengths", "0.5"], (numbers, "ms")),
        (["groups", "--plugin", "speech", "--config", bench.settings], ("yes",)),
        (["plugins"], ("speech",)),
        (["export", "--list"], ("onnx",)),
        (["doctor"], ("torch",)),
        (["evaluate", "filterbanks", "--data", labelled_sound, "--tasks", "keyword", "--seeds", "1"], ("chance",)),
    ]
    for command, words in commands:
        shown = l0prune_call(*command).succeeded().out
        # How long a path is, is not a matter of the table: it stays whole, so that it can be copied.
        lines = shown.replace(str(finished.folder), "runs/base").splitlines()
        assert max(map(len, lines)) <= width or command[0] == "doctor", shown
        for word in words:
            assert word in shown


def test_rows_stand_below_each_other_where_numbers_would_be_broken() -> None:
    table = Table("model", title="Sizes")
    for heading in ("parameters", "latency"):
        table.add_column(heading, no_wrap=True)
    table.add_row("big", "94,371,712", "120.55 ms")
    table.add_row("small", "", "12.05 ms")
    assert fitted(table, 60) is table
    console = make_console()
    with console.capture() as captured:
        console.print(fitted(table, 30))
    assert captured.get().splitlines() == [
        "Sizes",
        "big",
        "  parameters: 94,371,712",
        "  latency: 120.55 ms",
        "small",
        "  latency: 12.05 ms",
    ]
