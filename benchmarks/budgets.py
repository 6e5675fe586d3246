"""Three budgets at once: are they met, how exact is the metric of memory, and how long does the selection take?

    python benchmarks/budgets.py network hubert resnet50 vit-b-16 llama  # some minutes
    python benchmarks/budgets.py units  # 100,000 units

Parameters are counted, multiply-accumulates counted by PyTorch, and memory is what PyTorch's profiler sees of the
allocator during a forward pass. The yardsticks of the selection are one budget alone, and the order of one metric's
prices without a search for the weights of the budgets. Its times are those of a processor's core, so that other
programs on the machine do not count.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from l0bench.budget_networks import NETWORKS, many_units
from l0bench.memory_profile import profiled_peak
from l0bench.provenance import where

from l0prune.measuring import macs, parameters
from l0prune.removal import apply_plan, make_plan
from l0prune.size import Subject, bounds_of, budgets_of, choose, joint_target, kept_indices, read_targets
from l0prune.support import copied, model_shapes

ROOT = Path(__file__).parents[1]
TARGETS = {"params": 0.5, "macs": 0.5, "memory": 0.6}
"""What is left of each at most, as a share of the dense network's."""
GROUPS, UNITS = 100, 1000
REPEATS = 5


def main() -> None:
    """Measure, print, and add to the results."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["network", "units"])
    arguments.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}")
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "budgets.json")
    options = arguments.parse_args()
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    found = {"units": of_units()} if options.what == "units" else {name: of_network(name) for name in options.names}
    for name, figures in found.items():
        results[name] = figures | {"where": where(torch.device("cpu"))}
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def of_network(name: str) -> dict[str, Any]:
    """Prune a network under three budgets by random importances, and measure what is left."""
    torch.manual_seed(0)
    model, x, groups = NETWORKS[name]()
    subject = Subject(model=model, groups=tuple(groups), observe=lambda net: net(x), round_to="auto")
    begun = time.process_time()
    target = joint_target(subject, read_targets(TARGETS))
    counting_seconds, round_to = time.process_time() - begun, target.round_to or 1
    budgets = budgets_of(target)
    scores = np.random.default_rng(0).exponential(size=sum(group.units for group in groups))
    bounds = bounds_of(groups, {}, round_to)
    begun = time.process_time()
    chosen = choose(scores, groups, budgets, bounds=bounds, round_to=round_to)
    seconds = time.process_time() - begun
    plan = make_plan(groups, kept_indices(chosen.kept, groups), model_shapes(model))
    smaller = apply_plan(copied(model), plan).eval()
    measures = {
        "params": parameters,
        "macs": lambda net: macs(partial(net, x)),
        "memory": lambda net: profiled_peak(net, x),
    }
    rows = {}
    for budget in budgets:
        measure = measures[budget.name]
        dense, left, promised = measure(model), measure(smaller), budget.size.exact(chosen.counts)
        rows[budget.name] = {
            "dense": budget.size.total,
            "dense_measured": dense,
            "budget": budget.most,
            "promised": promised,
            "measured": left,
        }
        error, dense_error = left / promised - 1, dense / budget.size.total - 1
        print(
            f"{name:10} {budget.name:7} dense {budget.size.total:>15,} (measured {dense_error:+.2%}), "
            f"budget {budget.most:>15,}, left {promised:>15,} (measured {error:+.2%})",
            flush=True,
        )
    took = f"{len(scores):,} units in multiples of {round_to}, chosen in {seconds:.2f} s of one core"
    print(f"{name:10} {took}, gap {chosen.gap:.1%}", flush=True)
    return {
        "units": len(scores),
        "groups": len(groups),
        "round_to": round_to,
        "seconds": {"counting": round(counting_seconds, 3), "selection": round(seconds, 3)},
        "gap": chosen.gap,
        "metrics": rows,
    }


def of_units() -> dict[str, Any]:
    """Time the selection among 100,000 units."""
    groups, budgets = many_units(GROUPS, UNITS)
    scores = np.random.default_rng(0).exponential(size=GROUPS * UNITS)
    bounds = bounds_of(groups, {})
    ways = {
        "three budgets": partial(choose, scores, groups, budgets, bounds=bounds),
        "three budgets, one order": partial(choose, scores, groups, budgets, bounds=bounds, search=False),
        "one budget": partial(choose, scores, groups, budgets[:1], bounds=bounds, search=False),
    }
    found: dict[str, Any] = {"units": GROUPS * UNITS}
    for way, run in ways.items():
        times = []
        for _ in range(REPEATS):
            begun = time.process_time()
            chosen = run()
            times.append(time.process_time() - begun)
        met = [budget.size.exact(chosen.counts) <= budget.most for budget in budgets]
        figures = f"worth {chosen.worth:.4g}, gap {chosen.gap:.2%}, met {met}"
        print(f"{way:25} {np.median(times):.3f} s of one core, {figures}", flush=True)
        found[way] = {
            "seconds": round(float(np.median(times)), 4),
            "slowest": round(max(times), 4),
            "worth": chosen.worth,
            "gap": chosen.gap,
        }
    return found


if __name__ == "__main__":
    main()
