"""Whether a run or an export is what was made: `verify`, and what it says."""

from l0prune.workflows.verification.entry import Check, Verification, verify

__all__ = ["Check", "Verification", "verify"]
