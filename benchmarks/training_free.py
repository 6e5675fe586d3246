"""Test accuracy after pruning without training: `l0prune.prune` against torch-pruning, from the same dense networks.

    python benchmarks/training_free.py                       # everything: three networks, four targets, five seeds
    python benchmarks/training_free.py --seeds 1 --networks cnn

A residual network of convolutions, a vision transformer, and a plain transformer over the rows of the images, are
trained on scikit-learn's digits. Then each method removes a share of their parameters, and nothing is trained any more.
All methods see the same 16 batches of 64 training images, and end at no more parameters than the target allows. `prune`
runs with every importance, without a repair and with one; torch-pruning runs by group magnitude, group Taylor and group
Hessian. Its Hessian gets the mean square of the gradients of single examples, as its documentation describes.
"""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from l0bench import training_free_networks as digits
from l0bench.provenance import where
from l0bench.training_free_networks import Data, cuts_by_torch_pruning, squared_gradients, trained
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune.config import IMPORTANCES
from l0prune.measuring import parameters
from l0prune.support import safe_children

ROOT = Path(__file__).parents[1]
TARGETS = (0.25, 0.5, 0.75, 0.9)
BATCHES = 16
THEIRS = ("magnitude", "taylor", "hessian")


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def run(network: str, dense: nn.Module, seed: int) -> list[dict[str, Any]]:
    """All methods and targets for one dense network."""
    data, rows = Data(seed), []
    batches = list(islice(Data(seed + 100).batches(), BATCHES))
    example = data.train[0][:8]

    def add(method: str, target: float, pruned: nn.Module) -> None:
        size = parameters(pruned)
        assert size <= int(parameters(dense) * (1 - target)), (method, target, size)
        row = {"network": network, "method": method, "target": target, "seed": seed, "parameters": size}
        rows.append({**row, "accuracy": data.accuracy(pruned)})

    groups = l0prune.inspect(dense, example).groups
    for importance in IMPORTANCES:
        # Once for all targets: `prune` takes its importances from a function, and `repair` repairs what it has made.
        scores = l0prune.importances(dense, groups, importance, batches=batches, loss=loss, seed=seed)
        for target in TARGETS:
            pruned = l0prune.prune(
                dense,
                example,
                target_sparsity=target,
                groups=groups,
                round_to=1,
                importance=lambda _m, _g, scores=scores: scores,
            )
            add(f"prune, {importance}", target, pruned)
            l0prune.repair(dense, pruned, l0prune.plan_of(pruned), batches, loss=loss)
            add(f"prune, {importance}, repaired", target, pruned)
    squares = squared_gradients(dense.eval(), batches)
    for importance in THEIRS:
        cuts = cuts_by_torch_pruning(dense, example, batches, TARGETS, importance, squares)
        for target, pruned in zip(TARGETS, cuts, strict=True):
            add(f"torch-pruning, {importance}", target, pruned)
    rows.append({"network": network, "method": "dense", "target": 0.0, "seed": seed, "accuracy": data.accuracy(dense)})
    return rows


def one(network: str, seed: int) -> list[dict[str, Any]]:
    """Train a network and prune it in all ways."""
    torch.set_num_threads(1)
    return run(network, trained(network, seed), seed)


def main() -> None:
    """Run, print a table, write JSON, markdown and a plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(digits.NETWORKS), choices=digits.NETWORKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/training-free.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    cells = [(network, seed) for network in args.networks for seed in range(args.seeds)]
    with safe_children(), ProcessPoolExecutor(args.jobs, get_context("spawn")) as workers:
        for (network, seed), found in zip(cells, workers.map(one, *zip(*cells, strict=True)), strict=True):
            rows += found
            print(f"{network}, seed {seed}: dense {found[-1]['accuracy']:.3f}", flush=True)
    result = {"batches": BATCHES, "batch": digits.BATCH, **where(torch.device("cpu")), "rows": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    text = table(rows)
    args.out.with_suffix(".md").write_text(text)
    print(text)
    plot(rows, args.out.with_suffix(".png"))


def accuracies(rows: list[dict[str, Any]], network: str, method: str, target: float) -> list[float]:
    """In per cent, by seed."""
    return [
        100 * row["accuracy"]
        for row in rows
        if (row["network"], row["method"], row["target"]) == (network, method, target)
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and deviation of every method, a table a network."""
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != "dense"]
    lines = [
        "# Pruning without training",
        "",
        "Test accuracy on scikit-learn's digits, %, mean ± deviation over seeds.",
    ]
    for network in dict.fromkeys(row["network"] for row in rows):
        dense = accuracies(rows, network, "dense", 0.0)
        lines += ["", f"## {network}: dense {summary(dense)}", ""]
        lines += ["| method | " + " | ".join(f"{target:.0%} removed" for target in TARGETS) + " |"]
        lines += ["|---" * (1 + len(TARGETS)) + "|"]
        for method in methods:
            cells = [summary(accuracies(rows, network, method, target)) for target in TARGETS]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def summary(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.1f}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against the share of parameters left, a panel for each network."""
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["network"] for row in rows))
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != "dense"]
    figure = Figure(figsize=(4.6 * len(networks), 5.2), layout="constrained")
    panels = figure.subplots(1, len(networks), squeeze=False, sharey=True)[0]
    colours = dict(zip((*IMPORTANCES, "hessian"), ("C0", "C1", "C2", "C3", "0.5", "C4"), strict=True))
    for panel, network in zip(panels, networks, strict=True):
        panel.axhline(
            statistics.mean(accuracies(rows, network, "dense", 0.0)), color="0.6", linestyle=":", label="dense"
        )
        for method in methods:
            found = [accuracies(rows, network, method, target) for target in TARGETS]
            colour = colours[method.removesuffix(", repaired").rpartition(" ")[2]]
            style = "-" if "repaired" in method else ":" if "torch" in method else "--"
            left = [100 * (1 - target) for target in TARGETS]
            panel.errorbar(
                left,
                [statistics.mean(values) for values in found],
                [statistics.stdev(values) if len(values) > 1 else 0 for values in found],
                color=colour,
                linestyle=style,
                marker="s" if "torch" in method else "o",
                markersize=4,
                capsize=2,
                label=method,
            )
        panel.set_title(network)
        panel.set_xlabel("parameters left (%)")
    panels[0].set_ylabel("test accuracy without training (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
