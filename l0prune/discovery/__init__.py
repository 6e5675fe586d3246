"""What can be pruned in a network: a forward pass is followed; units that live and die together make groups."""

from l0prune.discovery.follow import check_traceable, trace
from l0prune.discovery.found import Discovery, LeftAlone
from l0prune.discovery.grouping import unused_modules
from l0prune.discovery.search import discover
from l0prune.discovery.traced import Cost, Trace

__all__ = ["Cost", "Discovery", "LeftAlone", "Trace", "check_traceable", "discover", "trace", "unused_modules"]
