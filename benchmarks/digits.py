"""Test accuracy after pruning: `l0prune.wrap` against torch-pruning, from the same network, with the same budget.

    python benchmarks/digits.py                 # everything: two networks, three targets, five seeds
    python benchmarks/digits.py --seeds 1 --networks cnn

A small convolutional network and a small vision transformer are trained on scikit-learn's digits. From that network on,
every method has the same number of optimizer steps, batches and learning rates, and ends at no more parameters than its
target allows. `wrap` learns what to remove for half of the steps and trains the pruned network on for the rest;
torch-pruning removes at once, by group magnitude or by Taylor expansion over 16 batches, and trains on for all of them.
`random` keeps random units of the groups that `wrap` found: what the choice itself is worth.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch_pruning
from sklearn.datasets import load_digits
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune.counting import parameters
from l0prune.selection import budget_for, kept_indices, select

ROOT = Path(__file__).parents[1]
TARGETS = (0.5, 0.75, 0.9)
DENSE_STEPS, STEPS, BATCH, RATE = 800, 800, 64, 1e-3
GATED_SHARE = 0.5
METHODS = ("wrap", "magnitude", "taylor", "random")


def cnn() -> nn.Module:
    """57 thousand parameters: three convolutions, a residual one among them."""
    return Residual()


class Residual(nn.Module):
    """A small residual convolutional network."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = self._layer(1, width)
        self.widen = self._layer(width, 2 * width)
        self.first, self.second = self._layer(2 * width, 2 * width), self._layer(2 * width, 2 * width)
        self.classify = nn.Linear(2 * width, 10)

    @staticmethod
    def _layer(inside: int, outside: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 8, 8) -> (B, 10)."""
        x = F.max_pool2d(self.widen(self.enter(x)), 2)
        x = x + self.second(self.first(x))
        return self.classify(x.mean((2, 3)))


def vit() -> nn.Module:
    """timm's vision transformer, four blocks of 64 features."""
    return timm.models.VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=64, depth=4, num_heads=4, mlp_ratio=2
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"cnn": cnn, "vit": vit}


class Data:
    """1,200 digits to train on and 597 to test on, in [0, 1]."""

    def __init__(self, seed: int) -> None:
        digits = load_digits()
        order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(1234))
        images = torch.tensor(digits.images, dtype=torch.float32)[order, None] / 16
        labels = torch.tensor(digits.target)[order]
        self.train, self.test = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])
        self._generator = torch.Generator().manual_seed(seed)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Random batches without end."""
        images, labels = self.train
        while True:
            chosen = torch.randint(0, len(images), (BATCH,), generator=self._generator)
            yield images[chosen], labels[chosen]

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Share of the test set."""
        images, labels = self.test
        return float((model.eval()(images).argmax(1) == labels).float().mean())


def train(model: nn.Module, data: Data, steps: int) -> None:
    """AdamW with the learning rate falling linearly to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for _, (images, labels) in zip(range(steps), data.batches(), strict=False):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()


def prune_by_wrap(dense: nn.Module, data: Data, target: float, **settings: Any) -> tuple[nn.Module, dict[str, float]]:
    """Some of the steps with gates, at the full learning rate; the rest without."""
    model, gated_steps = copy.deepcopy(dense), int(STEPS * GATED_SHARE)
    pruner = l0prune.wrap(model, data.train[0][:8], target_sparsity=target, **settings)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=RATE, weight_decay=0.01))
    model.train()
    for _, (images, labels) in zip(range(gated_steps), data.batches(), strict=False):
        optimizer.zero_grad()
        (F.cross_entropy(model(images), labels) + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
    pruned = pruner.finalize()
    more = {"at_the_cut": data.accuracy(pruned), "expected_sparsity": pruner.sparsity.expected}
    train(pruned, data, STEPS - gated_steps)
    return pruned, more


def prune_at_random(dense: nn.Module, data: Data, target: float) -> tuple[nn.Module, dict[str, float]]:
    """Random units of the same groups."""
    model = copy.deepcopy(dense)
    found = l0prune.inspect(model, data.train[0][:8])
    size = found.parameter_model
    scores = torch.rand(int(size.units.sum())).numpy()
    kept = select(scores, found.groups, size, budget_for(size, target))
    shapes = l0prune.plan.model_shapes(model)
    plan = l0prune.RemovalPlan(groups=found.groups, kept=kept_indices(kept, found.groups), shapes=shapes)
    pruned = l0prune.apply_plan(model, plan)
    more = {"at_the_cut": data.accuracy(pruned)}
    train(pruned, data, STEPS)
    return pruned, more


def prune_by_torch_pruning(
    dense: nn.Module, data: Data, target: float, importance: str
) -> tuple[nn.Module, dict[str, float]]:
    """Cut at once, and train for all of the steps."""
    batches = islice(data.batches(), 16 if importance == "taylor" else 0)
    (model,) = cuts_by_torch_pruning(dense, data.train[0][:8], batches, [target], importance)
    more = {"at_the_cut": data.accuracy(model)}
    train(model, data, STEPS)
    return model, more


def cuts_by_torch_pruning(
    dense: nn.Module,
    example: Tensor,
    batches: Iterable[tuple[Tensor, Tensor]],
    targets: Sequence[float],
    importance: str,
    squares: dict[str, Tensor] | None = None,
) -> list[nn.Module]:
    """Its global pruner in small steps: what it has made when the parameters meet the budget of each target.

    Args:
        dense: Left as it is.
        example: An input.
        batches: Images and labels that "taylor" and "hessian" sum their gradients over.
        targets: Shares of the parameters to remove, ascending.
        importance: "magnitude", "taylor" or "hessian".
        squares: `squared_gradients` for "hessian", if they are there already.
    """
    model = copy.deepcopy(dense)
    budgets = [int(parameters(model) * (1 - target)) for target in targets]
    score = {
        "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
        "taylor": torch_pruning.importance.GroupTaylorImportance,
        "hessian": torch_pruning.importance.GroupHessianImportance,
    }[importance]()
    heads = {m.qkv: m.num_heads for m in model.modules() if isinstance(m, Attention)}
    last = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        score,
        global_pruning=True,
        pruning_ratio=0.99,
        max_pruning_ratio=0.97,
        iterative_steps=400,
        ignored_layers=last,
        num_heads=heads,
        prune_num_heads=bool(heads),
        channel_groups={},
        customized_pruners=None,
        root_module_types=[nn.Conv2d, nn.Linear],
    )
    if importance == "taylor":
        model.zero_grad()
        for images, labels in batches:
            F.cross_entropy(model(images), labels).backward()
    elif importance == "hessian":
        # Its own sum forgets all examples but the last: it looks for a name where it keeps parameters.
        squares = squares or squared_gradients(model, batches)
        parameters_of = dict(model.named_parameters())
        score._accu_grad = {parameters_of[name]: square.clone() for name, square in squares.items()}
        score._counter = dict.fromkeys(score._accu_grad, 1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    found = []
    for budget in budgets:
        while parameters(model) > budget and pruner.current_step < 400:
            pruner.step()
            for module in model.modules():
                if isinstance(module, Attention):
                    module.num_heads = pruner.num_heads[module.qkv]
                    module.head_dim = module.qkv.out_features // (3 * module.num_heads)
                    module.attn_dim = module.qkv.out_features // 3
        found.append(copy.deepcopy(model))
        found[-1].zero_grad()
    return found


def squared_gradients(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The square of the loss's gradient, by parameter, as a mean over single examples."""
    squares, examples = {name: torch.zeros_like(p) for name, p in model.named_parameters()}, 0
    for images, labels in batches:
        for one in F.cross_entropy(model(images), labels, reduction="none"):
            gradients = torch.autograd.grad(one, list(model.parameters()), retain_graph=True)
            examples += 1
            for square, gradient in zip(squares.values(), gradients, strict=True):
                square += gradient.square()
    return {name: square / examples for name, square in squares.items()}


def run(method: str, dense: nn.Module, seed: int, target: float, **settings: Any) -> dict[str, float]:
    """One pruning; the accuracy is on the test set."""
    torch.manual_seed(seed)
    data, began = Data(seed + 100), time.perf_counter()
    if method == "wrap":
        pruned, more = prune_by_wrap(dense, data, target, **settings)
    elif method == "random":
        pruned, more = prune_at_random(dense, data, target)
    else:
        pruned, more = prune_by_torch_pruning(dense, data, target, method)
    return {
        "accuracy": data.accuracy(pruned),
        "parameters": parameters(pruned),
        "budget": int(parameters(dense) * (1 - target)),
        "seconds": time.perf_counter() - began,
        **more,
    }


def trained(network: str, seed: int) -> nn.Module:
    """The dense network that all methods start from."""
    torch.manual_seed(seed)
    model = NETWORKS[network]()
    train(model, Data(seed), DENSE_STEPS)
    return model


def main() -> None:
    """Run, print a table, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/digits.json")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    workers = ProcessPoolExecutor(args.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    for network in args.networks:
        models = list(workers.map(trained, [network] * args.seeds, range(args.seeds)))
        dense = [Data(seed).accuracy(model) for seed, model in enumerate(models)]
        print(f"{network}: {parameters(models[0]):,} parameters, dense {summary(dense)}", flush=True)
        rows.append({"network": network, "method": "dense", "target": 0.0, "accuracy": dense})
        for target in TARGETS:
            for method in args.methods:
                seeds = range(args.seeds)
                runs = list(workers.map(run, [method] * args.seeds, models, seeds, [target] * args.seeds))
                row = {"network": network, "method": method, "target": target}
                row |= {key: [one[key] for one in runs] for key in runs[0]}
                rows.append(row)
                size = int(np.median(row["parameters"]))
                cut = f"at the cut {statistics.mean(row['at_the_cut']):.3f}"
                print(
                    f"  {target:4.0%} {method:10} {summary(row['accuracy'])}  {size:7,} parameters  {cut}", flush=True
                )
    result = {"steps": STEPS, "dense_steps": DENSE_STEPS, "batch": BATCH, "versions": versions(), "rows": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    plot(rows, args.out.with_suffix(".png"))


def summary(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} +- {deviation:.3f}"


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch-pruning": torch_pruning.__version__,
        "timm": timm.__version__,
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against the share of parameters left, a panel for each network."""
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(5 * len(networks), 4.4), layout="constrained")
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for panel, network in zip(panels, networks, strict=True):
        mine = [row for row in rows if row["network"] == network]
        dense = statistics.mean(mine[0]["accuracy"])
        panel.axhline(100 * dense, color="0.6", linestyle=":", label="dense")
        for shift, method in enumerate(dict.fromkeys(row["method"] for row in mine[1:])):
            points = [row for row in mine if row["method"] == method]
            left = [100 * (1 - row["target"]) + shift - 1.5 for row in points]
            means = [100 * statistics.mean(row["accuracy"]) for row in points]
            errors = [100 * (statistics.stdev(row["accuracy"]) if len(row["accuracy"]) > 1 else 0) for row in points]
            label = {"wrap": "l0prune.wrap", "random": "random units"}.get(method, f"torch-pruning, {method}")
            panel.errorbar(left, means, errors, marker="o", capsize=3, label=label)
        panel.set_title(network)
        panel.set_xlabel("parameters left (%)")
        panel.set_ylabel("test accuracy (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
