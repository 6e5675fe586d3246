"""Fine-tuned speech networks at half their size, with their heads, in their own metric.

    python benchmarks/fine_tuned.py run --tasks ctc --seeds 0 1 2
    python benchmarks/fine_tuned.py table          # results/fine-tuned.md, of all rows that are there

The embedded teacher gets a head and is fine-tuned on real labelled clips at first use: characters by CTC, speakers by
x-vectors, who speaks when by classes of frames. Then `l0prune compress` removes half of it, with the task's loss beside
the last layer, with the teacher's logits, and by the last layer alone. Rows are appended to results/fine-tuned.jsonl as
they come; what is there is not run again.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from l0bench.compress_rows import add_missing
from l0bench.fine_tuned import table, trials
from l0bench.fine_tuned.clips import TASKS
from l0bench.fine_tuned.trials import IDENTITY, METHODS, Wished
from l0bench.result_rows import ResultRows, one_thread, told

ROOT = Path(__file__).parents[1]
SOURCES = (
    "l0prune",
    "plugins/speech",
    "benchmarks/fine_tuned.py",
    ":(glob)benchmarks/l0bench/*.py",
    "benchmarks/l0bench/fine_tuned",
    "benchmarks/l0bench/real_material",
)
"""What a row's commit speaks for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, or make the table."""
    args = _parser().parse_args(arguments)
    rows = ResultRows(args.out, IDENTITY)
    return told(lambda: args.command(args, rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="add rows", formatter_class=parser.formatter_class)
    run.set_defaults(command=_run)
    run.add_argument("--tasks", nargs="+", default=list(TASKS), choices=tuple(TASKS), metavar="TASK")
    run.add_argument("--methods", nargs="+", default=list(METHODS), choices=tuple(METHODS), metavar="METHOD")
    run.add_argument("--sizes", nargs="+", type=int, default=[50], help="per cent to remove")
    run.add_argument("--steps", nargs="+", type=int, default=[100], help="of the optimizer, in all")
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    run.add_argument("--material", type=Path, default=Path("runs/material"), help="where speech and networks are kept")
    commands.add_parser("table", help="make the table").set_defaults(command=_table)
    for one in commands.choices.values():
        one.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fine-tuned.jsonl", help="the rows")
    return parser


def _run(args: argparse.Namespace, rows: ResultRows) -> int:
    wished = [Wished(task=task, method="dense", size=0, steps=0, seed=0) for task in args.tasks]
    for seed, steps, size, method, task in product(args.seeds, args.steps, args.sizes, args.methods, args.tasks):
        wished.append(Wished(task=task, method=method, size=size, steps=steps, seed=seed))
    return add_missing(rows, wished, trials.run, material=args.material, line=table.line, sources=SOURCES)


def _table(args: argparse.Namespace, rows: ResultRows) -> int:
    print(table.write(rows.read(), args.out))
    return 0


if __name__ == "__main__":
    one_thread()
    sys.exit(main())
