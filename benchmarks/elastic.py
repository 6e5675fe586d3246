"""Is a network that is cut out of one elastic run as good as one that was trained for its size alone?

    python benchmarks/elastic.py run                     # the embedded teacher, 240 steps, one seed
    python benchmarks/elastic.py run --material cnn      # a small network for images of digits, in one's own loop
    python benchmarks/elastic.py table                   # results/elastic.md

The yardstick is the twin: the same recipe, data and steps for one size. Both are scored on the same held-out data.
Each run appends lines to results/elastic.jsonl when it has finished; what is there is not run again.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from l0bench.digit_pruning.data import batches, scored, trained
from l0bench.digit_pruning.methods import by_wrap, example
from l0bench.digit_pruning.networks import NETWORKS
from l0bench.digit_pruning.trial import Trial
from l0bench.learning_rate import rate_at, set_rate
from l0bench.provenance import where
from l0bench.result_rows import ResultRows, Row, commit_of, one_thread, told
from torch.nn import functional as F

import l0prune
from l0prune.config import ElasticConfig
from l0prune.measuring import parameters

RESULTS = Path(__file__).parent / "results"
ROWS = ResultRows(RESULTS / "elastic.jsonl", ("material", "label", "left", "steps", "seed"))
LEFT = (0.25, 0.5, 0.75, 0.9)
TWIN, SPEECH = "twin", "speech"
SMALLEST = 0.25


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What elastic runs and twins have in common."""
    return {"seed": args.seed, "precision": "float32", "device": "cpu"}


def speech_twin(left: float, args: argparse.Namespace) -> Row:
    """The quick recipe for one size."""
    with tempfile.TemporaryDirectory() as place:
        own: dict[str, Any] = {"target_sparsity": 1 - left, "steps": args.steps}
        if args.projected:
            # The controller of elastic runs, whose choice is final where theirs is.
            settle = l0prune.resolve(l0prune.get_plugin("speech"), own).joint.steps
            own["controller"] = {"kind": "projected", "settle_steps": settle}
        began = time.process_time()
        report = l0prune.compress("speech", settings=settings(args) | own, out=Path(place) / "run")
    seconds = round(time.process_time() - began, 2)
    return {"loss": report.distill_loss_final, "seconds": seconds, "parameters": report.params_after}


def speech_elastic(args: argparse.Namespace) -> Iterator[Row]:
    """The quick recipe for all sizes, and what is cut out of it."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        own = {"steps": args.elastic_steps or args.steps, "elastic": {"smallest": SMALLEST, "sizes": args.sizes}}
        began = time.process_time()
        l0prune.compress("speech", settings=settings(args) | own, out=run)
        seconds = round(time.process_time() - began, 2)
        for left in LEFT:
            began = time.process_time()
            out = Path(place) / f"{left:g}"
            cut = l0prune.cut(run, {"params": left}, out=out, polish=args.polish)
            took = time.process_time() - began
            yield {
                "left": left,
                "loss": cut.distill_loss_final,
                "seconds": seconds,
                "parameters": cut.params_after,
                "cut_seconds": round(took, 2),
                "difference": cut.max_relative_difference,
            }


RATE, CALIBRATION = 1e-3, 16
"""Learning rate on digits, and batches for the statistics of batch norms."""


def digits_twin(network: str, left: float, args: argparse.Namespace) -> Row:
    """`wrap` for one size."""
    dense = trained(network, args.seed)
    trial = Trial(
        network=network,
        method="wrap",
        label=TWIN,
        size=round(100 * (1 - left)),
        steps=args.steps,
        rate=RATE,
        seed=args.seed,
    )
    torch.manual_seed(args.seed)
    began = time.process_time()
    pruned, _ = by_wrap(dense, trial, batches(args.seed + 1000))
    seconds = time.process_time() - began
    return _scores(pruned) | {"seconds": round(seconds, 2)}


def digits_elastic(network: str, args: argparse.Namespace) -> Iterator[Row]:
    """`wrap` for all sizes."""
    steps, ends = args.elastic_steps or args.steps, ElasticConfig(smallest=SMALLEST, sizes=args.sizes)
    model, data = copy.deepcopy(trained(network, args.seed)), batches(args.seed + 1000)
    torch.manual_seed(args.seed)
    began = time.process_time()
    pruner = l0prune.wrap(model, example(), elastic=ends, round_to=1, total_steps=steps)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=RATE, weight_decay=0.01), fused=True)
    model.train()
    for step in range(steps):
        set_rate(optimizer.param_groups[:1], rate_at(step, steps, RATE))
        images, labels = next(data)
        optimizer.zero_grad()
        for left in pruner.sizes:
            with pruner.at(left):
                (F.cross_entropy(model(images), labels) / len(pruner.sizes)).backward()
        optimizer.step()
        pruner.step()
    seconds = round(time.process_time() - began, 2)
    calibration = [images for images, _ in islice(batches(args.seed + 2000), CALIBRATION)]
    for left in LEFT:
        began = time.process_time()
        pruned = pruner.finalize(left=left, batches=calibration)
        cut = {"cut_seconds": round(time.process_time() - began, 2), "seconds": seconds}
        yield {"left": left, **_scores(pruned), **cut, "difference": pruner.report.max_relative_difference}


def _scores(network: torch.nn.Module) -> Row:
    accuracy, loss = scored(network, "test")
    return {"loss": loss, "accuracy": accuracy, "parameters": parameters(network)}


def run(args: argparse.Namespace) -> int:
    """Run what there is no row of."""
    one_thread()
    same = {"material": args.material, "steps": args.steps, "seed": args.seed}
    facts = {**where(torch.device("cpu")), "commit": commit_of("l0prune", "plugins", "benchmarks")}
    twin = "twin, projected" if args.projected else TWIN
    for wish in ROWS.missing([{**same, "label": twin, "left": left} for left in args.twins]):
        made = (
            speech_twin(wish["left"], args)
            if args.material == SPEECH
            else digits_twin(args.material, wish["left"], args)
        )
        ROWS.append({**wish, **made, "where": facts})
    if not args.no_elastic and ROWS.missing([{**same, "label": args.label, "left": left} for left in LEFT]):
        more = {"elastic_steps": args.elastic_steps or args.steps, "sizes": args.sizes, "polish": args.polish}
        for row in speech_elastic(args) if args.material == SPEECH else digits_elastic(args.material, args):
            ROWS.append({**same, "label": args.label, **row, **more, "where": facts})
    return 0


def table(_args: argparse.Namespace) -> int:
    """Write the figures as a page."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    rows = ROWS.read()
    for row in rows:
        groups.setdefault((row["material"], row["steps"], row["label"]), []).append(row)
    lines = [
        "# One elastic run against a run for each size",
        "",
        "Made by `benchmarks/elastic.py table` from elastic.jsonl. Loss on held-out data: of distillation for speech",
        "(the embedded teacher, recipe `quick` in fewer steps), cross-entropy on test images for networks of digits.",
        "In brackets the relative difference to the twins of the same seeds. Cost is the processor's time, with proofs",
        "and cuts, against that of the mean twin. One thread, on a machine with other work.",
        "",
        f"| material | twin's steps | run | seeds | {' | '.join(f'{left:.0%}' for left in LEFT)} | cost |",
        f"|---|---|---|---|{'---|' * len(LEFT)}---|",
    ]
    for (material, steps, label), members in sorted(
        groups.items(), key=lambda pair: (*pair[0][:2], pair[0][2] != TWIN, pair[0][2])
    ):
        twins = {(row["left"], row["seed"]): row for row in groups.get((material, steps, TWIN), [])}
        cells = [_cell([row for row in members if row["left"] == left], twins, label) for left in LEFT]
        seeds = len({row["seed"] for row in members})
        mean = statistics.fmean(row["seconds"] for row in twins.values()) if twins else None
        cost = f"{statistics.fmean(row['seconds'] for row in members) / mean:.2f}" if mean else ""
        lines.append(f"| {material} | {steps} | {label} | {seeds} | {' | '.join(cells)} | {cost} |")
    Path(RESULTS / "elastic.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


def _cell(rows: Sequence[Row], twins: dict[tuple[float, int], Row], label: str) -> str:
    """Mean loss of one size, with the mean relative difference to the twins of the same seeds."""
    if not rows:
        return ""
    loss = f"{statistics.fmean(row['loss'] for row in rows):.4f}"
    if "accuracy" in rows[0]:
        loss = f"{loss}, {statistics.fmean(row['accuracy'] for row in rows):.1%} right"
    both = [(row, twins[row["left"], row["seed"]]) for row in rows if (row["left"], row["seed"]) in twins]
    if label == TWIN or not both:
        return loss
    mine, theirs = (statistics.fmean(pair[side]["loss"] for pair in both) for side in (0, 1))
    return f"{loss} ({mine / theirs - 1:+.1%})"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--material", choices=(SPEECH, *NETWORKS), default=SPEECH)
    runs.add_argument("--steps", type=int, default=240, help="of a twin, and of the elastic run by default")
    runs.add_argument("--elastic-steps", type=int, help="of the elastic run")
    runs.add_argument("--sizes", type=int, default=1)
    runs.add_argument("--polish", type=int, default=0)
    runs.add_argument("--seed", type=int, default=0)
    runs.add_argument("--label", default="elastic")
    runs.add_argument("--twins", type=float, nargs="*", default=LEFT)
    runs.add_argument("--projected", action="store_true", help="speech: twins with the controller of elastic runs")
    runs.add_argument("--no-elastic", action="store_true")
    runs.set_defaults(command=run)
    commands.add_parser("table").set_defaults(command=table)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Add rows, or make the table."""
    chosen = parser().parse_args(arguments)
    return told(lambda: chosen.command(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
