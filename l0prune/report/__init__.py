"""Runs as a page for people and as figures for programs. Knows nothing of any plugin's networks or data."""

from l0prune.report.card import Shown, missing, model_card
from l0prune.report.facts import RunFacts, run_facts
from l0prune.report.pareto import Pareto, write_pareto
from l0prune.report.write import Report, write_report

__all__ = [
    "Pareto",
    "Report",
    "RunFacts",
    "Shown",
    "missing",
    "model_card",
    "run_facts",
    "write_pareto",
    "write_report",
]
