"""Learned gates against one-shot pruning on a real speech recogniser: Whisper tiny.en's encoder, its decoder untouched.

    python benchmarks/whisper.py run --methods wrap taylor-task --sizes 50 --steps 300 --seeds 0 1 2 --jobs 2
    python benchmarks/whisper.py run --methods wrap --set gated_share=0.25 --label wrap-quarter
    python benchmarks/whisper.py table          # results/whisper.md and pictures, of all rows that are there
    python benchmarks/whisper.py missing        # what the whole comparison still owes

Rows are appended to results/whisper.jsonl as they come; what is there is not run again. Weights and speech are brought
at first use (benchmarks/real_material/, below --material).
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from l0bench.recognition import plan, running, table
from l0bench.recognition.losses import OBJECTIVES
from l0bench.recognition.trial import IDENTITY, Trial
from l0bench.result_rows import ResultRows, commit_of, in_processes, one_thread, told
from l0bench.wrap_settings import parsed

from l0prune import ConfigError

ROOT = Path(__file__).parents[1]
SOURCES = (
    "l0prune",
    "benchmarks/whisper.py",
    ":(glob)benchmarks/l0bench/*.py",
    "benchmarks/l0bench/recognition",
    "benchmarks/l0bench/real_material",
    "benchmarks/l0bench/students/low_rank.py",
)
"""What a row's commit speaks for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, list what is missing, or make table and pictures."""
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
    run.add_argument("--methods", nargs="+", default=list(running.METHODS), choices=running.METHODS, metavar="METHOD")
    run.add_argument("--sizes", nargs="+", type=int, default=list(plan.SIZES), help="per cent to remove")
    run.add_argument("--steps", nargs="+", type=int, default=[300], help="of the optimizer, in all")
    run.add_argument("--objective", nargs="+", default=[plan.OBJECTIVE], choices=OBJECTIVES, metavar="OBJECTIVE")
    run.add_argument("--seeds", nargs="+", type=int, default=list(plan.SEEDS))
    run.add_argument("--rate", default=str(plan.RATE), help="peak learning rate, or `search`: the best of three trials")
    run.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    run.add_argument(
        "--max-norm", type=_norm, default=plan.MAX_NORM, help="gradients are scaled down to it; `none` leaves them"
    )
    run.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of wrap, with a --label")
    run.add_argument("--label", help="what the method is called in tables; by default its name")
    run.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    run.add_argument("--this-commit", action="store_true", help="run again what is there of other commits")
    run.add_argument("--material", type=Path, default=Path("runs/material"), help="where weights and speech are kept")
    for name, command, about in (
        ("table", _table, "make the table and the pictures"),
        ("missing", _missing, "list what the whole comparison owes"),
    ):
        commands.add_parser(name, help=about).set_defaults(command=command)
    for one in commands.choices.values():
        one.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/whisper.jsonl", help="the rows")
    return parser


def _run(args: argparse.Namespace, rows: ResultRows) -> int:
    wished = _wished(args)
    commit = commit_of(*SOURCES)
    running.prepare(args.material)

    def add(trials: Sequence[Trial]) -> None:
        missing = rows.missing([trial.row() for trial in trials], commit=commit if args.this_commit else None)
        print(f"{len(missing)} of {len(trials)} rows to run", flush=True)
        work = partial(run_row, material=args.material)
        for row in in_processes(work, missing, args.jobs):
            rows.append(row | {"commit": commit})
            print(table.line(row), flush=True)

    add([plan.DENSE])
    if args.rate == "search":
        add([trial for one in wished for trial in plan.rate_trials(one)])
        found = rows.read()
        wished = [Trial(**{**one.row(), "rate": plan.chosen_rate(one, found)}) for one in wished]
    add(wished)
    return 0


def run_row(wish: dict[str, Any], *, material: Path) -> dict[str, Any]:
    """A row's trial, in a process of its own or this one."""
    return running.run(Trial(**{name: wish[name] for name in Trial.__dataclass_fields__}), material)


def _wished(args: argparse.Namespace) -> list[Trial]:
    settings = dict(parsed(text) for text in args.set)
    if settings and (args.methods != ["wrap"] or not args.label):
        raise ConfigError("--set is for wrap under a name of its own", hint="give --methods wrap --label NAME")
    if args.label and len(args.methods) > 1:
        raise ConfigError("one --label for several methods", got=" ".join(args.methods))
    if args.label in running.METHODS and args.label not in args.methods:
        raise ConfigError("the label is another method's name", got=args.label)
    try:
        rate = plan.RATE if args.rate == "search" else float(args.rate)
    except ValueError:
        raise ConfigError("rate is no number", got=args.rate, expected="a number or `search`") from None
    combinations = product(args.seeds, args.objective, args.steps, args.sizes, args.methods)
    return [
        Trial(
            method=method,
            label=args.label or method,
            size=size,
            steps=steps,
            objective=objective,
            rate=rate,
            seed=seed,
            precision=args.precision,
            max_norm=args.max_norm,
            settings=settings,
        )
        for seed, objective, steps, size, method in combinations
    ]


def _norm(text: str) -> float | None:
    return None if text == "none" else float(text)


def _table(args: argparse.Namespace, rows: ResultRows) -> int:
    for path in table.write(rows.read(), args.out):
        print(path)
    return 0


def _missing(args: argparse.Namespace, rows: ResultRows) -> int:
    owed = plan.owed(running.METHODS, rows.read())
    for cell in owed:
        print(" ".join(f"{name}={value}" for name, value in cell.items()))
    print(f"{len(owed)} rows are owed of {len(plan.cells(running.METHODS, rows.read()))}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    one_thread()
    sys.exit(main())
