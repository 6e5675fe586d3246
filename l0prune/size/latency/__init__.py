"""A size that is a time: measured on random plans and fitted."""

from l0prune.size.latency.fit import TICKS
from l0prune.size.latency.metric import Latency
from l0prune.size.latency.model import latency_cache, measure_latency
from l0prune.size.latency.samples import Observe, Samples, clocks

__all__ = ["TICKS", "Latency", "Observe", "Samples", "clocks", "latency_cache", "measure_latency"]
