"""Collects what the zoo finds into one table, printed when the tests are over."""

import sys
from pathlib import Path

import pytest

# Its networks are those of other files here, too.
sys.path.append(str(Path(__file__).parent))

GRAPH_COLUMNS = (
    "model",
    "groups of the module",
    "parameters",
    "groups of the graph",
    "parameters",
    "other batch sizes",
    "modes of the graph",
)
COLUMNS = ("model", "groups", "units reached", "parameters reached", "kinds", "left alone, and why")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tables of docs/reference/networks.md and docs/how-to/graph-form.md, in Markdown."""
    reports = terminalreporter.stats.get("passed", [])
    found = [property for report in reports if report.when == "call" for property in report.user_properties]
    for kind, columns in (("zoo", COLUMNS), ("graph form", GRAPH_COLUMNS)):
        rows = [row for name, row in found if name == kind]
        if len(rows) > 5:
            terminalreporter.write_line("")
            for row in (columns, ("---",) * len(columns), *rows):
                terminalreporter.write_line(f"| {' | '.join(row)} |")
