"""Collects what the zoo finds into one table, printed when the tests are over."""

import pytest

COLUMNS = ("model", "groups", "units reached", "parameters reached", "kinds", "left alone, and why")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of docs/reference/networks.md, in Markdown."""
    reports = terminalreporter.stats.get("passed", [])
    rows = [
        row for report in reports for name, row in report.user_properties if name == "zoo" and report.when == "call"
    ]
    if len(rows) > 5:
        terminalreporter.write_line("")
        for row in (COLUMNS, ("---",) * len(COLUMNS), *rows):
            terminalreporter.write_line(f"| {' | '.join(row)} |")
