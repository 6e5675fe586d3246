"""Is a network that is cut out of one elastic run as good as one that was trained for its size alone?

    python benchmarks/elastic.py run                     # the embedded teacher, 240 steps, one seed
    python benchmarks/elastic.py run --material digits   # small networks for images of digits, pruned in one's own loop
    python benchmarks/elastic.py table                   # results/elastic.md

The yardstick is the twin: the same recipe, data and steps for one size. Both are scored on the same held-out data.
Each run appends lines to results/elastic.jsonl when it has finished; what is there is not run again.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from l0bench.provenance import where
from l0bench.result_rows import ResultRows, Row, commit_of, one_thread, told

import l0prune

RESULTS = Path(__file__).parent / "results"
ROWS = ResultRows(RESULTS / "elastic.jsonl", ("material", "label", "left", "steps", "seed"))
LEFT = (0.25, 0.5, 0.75, 0.9)
TWIN = "twin"
SMALLEST = 0.25


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What elastic runs and twins have in common."""
    return {"seed": args.seed, "precision": "float32", "device": "cpu"}


def speech_twin(left: float, args: argparse.Namespace) -> Row:
    """The quick recipe for one size."""
    with tempfile.TemporaryDirectory() as place:
        own = {"target_sparsity": 1 - left, "steps": args.steps}
        report = l0prune.compress("speech", settings=settings(args) | own, out=Path(place) / "run")
    return {"loss": report.distill_loss_final, "seconds": sum(report.stage_seconds.values()), "parameters": report.params_after}


def speech_elastic(args: argparse.Namespace) -> Iterator[Row]:
    """The quick recipe for all sizes, and what is cut out of it."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        own = {"steps": args.elastic_steps or args.steps, "elastic": {"smallest": SMALLEST, "sizes": args.sizes}}
        report = l0prune.compress("speech", settings=settings(args) | own, out=run)
        seconds = sum(report.stage_seconds.values())
        for left in LEFT:
            began = time.perf_counter()
            out = Path(place) / f"{left:g}"
            cut = l0prune.cut(run, {"params": left}, out=out, polish=args.polish)
            took = time.perf_counter() - began
            yield {
                "left": left,
                "loss": cut.distill_loss_final,
                "seconds": seconds,
                "parameters": cut.params_after,
                "cut_seconds": round(took, 2),
                "difference": cut.max_relative_difference,
            }


def run(args: argparse.Namespace) -> int:
    """Run what there is no row of."""
    one_thread()
    same = {"material": args.material, "steps": args.steps, "seed": args.seed}
    facts = {**where(torch.device("cpu")), "commit": commit_of("l0prune", "plugins", "benchmarks/elastic.py")}
    for wish in ROWS.missing([{**same, "label": TWIN, "left": left} for left in args.twins]):
        ROWS.append({**wish, **speech_twin(wish["left"], args), "where": facts})
    label = args.label
    if not args.no_elastic and ROWS.missing([{**same, "label": label, "left": left} for left in LEFT]):
        more = {"elastic_steps": args.elastic_steps or args.steps, "sizes": args.sizes, "polish": args.polish}
        for row in speech_elastic(args):
            ROWS.append({**same, "label": label, **row, **more, "where": facts})
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--material", choices=("speech",), default="speech")
    runs.add_argument("--steps", type=int, default=240, help="of a twin, and of the elastic run by default")
    runs.add_argument("--elastic-steps", type=int, help="of the elastic run")
    runs.add_argument("--sizes", type=int, default=1)
    runs.add_argument("--polish", type=int, default=0)
    runs.add_argument("--seed", type=int, default=0)
    runs.add_argument("--label", default="elastic")
    runs.add_argument("--twins", type=float, nargs="*", default=LEFT)
    runs.add_argument("--no-elastic", action="store_true")
    runs.set_defaults(command=run)
    return made


if __name__ == "__main__":
    chosen = parser().parse_args()
    raise SystemExit(told(lambda: chosen.command(chosen)))
