"""A size that is a time: measured on random plans and fitted."""

from l0prune.size.latency.fit import TICKS
from l0prune.size.latency.model import POOR, latency_cache, measure_latency
from l0prune.size.latency.samples import Observe, Samples, clocks
from l0prune.size.latency.target import sparsity_for

__all__ = ["POOR", "TICKS", "Observe", "Samples", "clocks", "latency_cache", "measure_latency", "sparsity_for"]
