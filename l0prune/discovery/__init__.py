"""What can be pruned in a network: a forward pass is followed; units that live and die together make groups.

`operator_rule` and `module_rule` register rules of one's own. A rule is given a `Tracer`, and may use `across`,
`consume`, `extent` and `tensors`, as the built-in ones do.
"""

from l0prune.discovery.depth import Depth, checked_depth
from l0prune.discovery.follow import check_traceable, trace
from l0prune.discovery.found import Discovery, LeftAlone
from l0prune.discovery.grouping import unused_modules
from l0prune.discovery.recording import record
from l0prune.discovery.rules import (
    across,
    apply_rule,
    consume,
    enter_module,
    extent,
    module_rule,
    operator_rule,
    rule_of,
    tensors,
)
from l0prune.discovery.search import discover
from l0prune.discovery.sizes import SizedModule, classes_around, with_calls
from l0prune.discovery.traced import Allocation, Atoms, Cost, Trace
from l0prune.discovery.tracer import Tracer

__all__ = [
    "Allocation",
    "Atoms",
    "Cost",
    "Depth",
    "Discovery",
    "LeftAlone",
    "SizedModule",
    "Trace",
    "Tracer",
    "across",
    "apply_rule",
    "check_traceable",
    "checked_depth",
    "classes_around",
    "consume",
    "discover",
    "enter_module",
    "extent",
    "module_rule",
    "operator_rule",
    "record",
    "rule_of",
    "tensors",
    "trace",
    "unused_modules",
    "with_calls",
]
