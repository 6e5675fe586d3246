"""What is kept on disk: run directories, checkpoints, model files."""

from l0prune.storage.checkpoint import newest_checkpoint, save_checkpoint
from l0prune.storage.model_file import build_dense, load, read_description, read_plan, save, skeleton
from l0prune.storage.rehearsal import rehearse_saving
from l0prune.storage.run_directory import RunDirectory, claim_free, read_report

__all__ = [
    "RunDirectory",
    "build_dense",
    "claim_free",
    "load",
    "newest_checkpoint",
    "read_description",
    "read_plan",
    "read_report",
    "rehearse_saving",
    "save",
    "save_checkpoint",
    "skeleton",
]
