"""What batches tell about a network: who reads which units, and fitting the readers anew after a cut."""

from l0prune.calibration.batches import Forward, as_batches, run_on
from l0prune.calibration.consumers import channel_dim, matrices, readers, samples, watching, with_open_attention
from l0prune.calibration.repairing import Repaired, repair
from l0prune.calibration.statistics import has_statistics, renew_statistics

__all__ = [
    "Forward",
    "Repaired",
    "as_batches",
    "channel_dim",
    "has_statistics",
    "matrices",
    "readers",
    "renew_statistics",
    "repair",
    "run_on",
    "samples",
    "watching",
    "with_open_attention",
]
