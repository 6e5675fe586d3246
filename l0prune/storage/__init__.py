"""What is kept on disk: run directories, checkpoints, model files."""

from l0prune.storage.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from l0prune.storage.description import (
    DESCRIPTION,
    WEIGHTS,
    build_dense,
    check_description,
    read_description,
    read_plan,
    skeleton,
    stated_digest,
)
from l0prune.storage.model_file import check_made_by, load, save
from l0prune.storage.order import Order, read_order, write_order
from l0prune.storage.probe import PROBE, PROBE_TOLERANCE, probe_difference, read_probe
from l0prune.storage.rehearsal import rehearse_saving
from l0prune.storage.run_directory import LOOP, OWN_LOOP, RunDirectory, claim_free, read_report, run_plugin

__all__ = [
    "DESCRIPTION",
    "LOOP",
    "OWN_LOOP",
    "PROBE",
    "PROBE_TOLERANCE",
    "WEIGHTS",
    "Order",
    "RunDirectory",
    "build_dense",
    "check_description",
    "check_made_by",
    "claim_free",
    "load",
    "load_checkpoint",
    "newest_checkpoint",
    "probe_difference",
    "read_description",
    "read_order",
    "read_plan",
    "read_probe",
    "read_report",
    "rehearse_saving",
    "run_plugin",
    "save",
    "save_checkpoint",
    "skeleton",
    "stated_digest",
    "write_order",
]
