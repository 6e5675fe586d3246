"""Small networks pruned in one's own training loop: `l0prune.wrap` against pruning at once and torch-pruning.

    python benchmarks/digits.py run --jobs 2            # everything that is missing; goes on where it was broken off
    python benchmarks/digits.py run --methods wrap --set gated_share=0.25 --label wrap-quarter
    python benchmarks/digits.py table                   # results/digits.md and .png, of all rows that are there

A plain and a residual convolutional network, a vision transformer and a plain transformer are trained on scikit-learn's
digits. From that network on every method has the same number of optimizer steps, batches, learning rates and trials to
choose one, and ends at no more parameters than its target allows. `wrap` learns what to remove for some of the steps
and trains the pruned network for the others. All else removes at once and trains on for all of them: by magnitude,
Taylor expansion, activations or at random, with the project's groups; by torch-pruning's own pruner, with its own.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from l0bench.digit_pruning import running, table
from l0bench.digit_pruning.methods import METHODS
from l0bench.digit_pruning.networks import NETWORKS
from l0bench.digit_pruning.trial import IDENTITY, Trial
from l0bench.result_rows import ResultRows, commit_of, in_processes, one_thread, told
from l0bench.wrap_settings import parsed

from l0prune import ConfigError

ROOT = Path(__file__).parents[1]
SIZES, STEPS, SEEDS = (50, 75, 90, 95), (100, 300, 1000), (0, 1, 2, 3, 4)
SOURCES = ("l0prune", "benchmarks/digits.py", ":(glob)benchmarks/l0bench/*.py", "benchmarks/l0bench/digit_pruning")
"""What a row's commit speaks for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, list what is missing, or make table and picture."""
    args = _parser().parse_args(arguments)
    return told(lambda: args.command(args, ResultRows(args.out, IDENTITY)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    style = argparse.ArgumentDefaultsHelpFormatter
    for name, command, about in (
        ("run", _run, "add rows"),
        ("missing", _missing, "count what is missing"),
        ("table", _table, "make the table and the picture"),
    ):
        one = commands.add_parser(name, help=about, formatter_class=style)
        one.set_defaults(command=command)
        one.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/digits.jsonl", help="the rows")
        if name == "table":
            continue
        one.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NETWORK")
        one.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
        one.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="per cent to remove")
        one.add_argument("--steps", nargs="+", type=int, default=list(STEPS), help="of the optimizer, in all")
        one.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
        one.add_argument("--rate", default="search", help="learning rate, or `search`: the best of three trials")
        one.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of wrap, with a --label")
        one.add_argument("--label", help="what the method is called in tables; by default its name")
        one.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
        one.add_argument("--this-commit", action="store_true", help="run again what is there of other commits")
    return parser


def _run(args: argparse.Namespace, rows: ResultRows) -> int:
    wished, commit = _wished(args), commit_of(*SOURCES)

    def add(trials: Sequence[Trial]) -> None:
        missing = rows.missing(map(asdict, trials), commit=commit if args.this_commit else None)
        print(f"{len(missing)} of {len(trials)} rows to run", flush=True)
        for row in in_processes(running.run_row, missing, args.jobs):
            rows.append(row | {"commit": commit})
            print(table.line(row), flush=True)

    add([running.dense(network, seed) for network in args.networks for seed in args.seeds])
    if args.rate == "search":
        add([trial for one in wished for trial in running.rate_trials(one)])
        found = rows.read()
        wished = [replace(one, rate=running.chosen_rate(one, found) or one.rate) for one in wished]
    add(wished)
    return 0


def _wished(args: argparse.Namespace) -> list[Trial]:
    settings: dict[str, Any] = dict(parsed(text) for text in args.set)
    if settings and (args.methods != ["wrap"] or not args.label):
        raise ConfigError("--set is for wrap under a name of its own", hint="give --methods wrap --label NAME")
    if args.label and (len(args.methods) > 1 or (args.label in METHODS and args.label != args.methods[0])):
        raise ConfigError("the label does not tell methods apart", got=args.label, hint="choose another one")
    try:
        rate = running.RATES[1] if args.rate == "search" else float(args.rate)
    except ValueError:
        raise ConfigError("rate is no number", got=args.rate, expected="a number or `search`") from None
    # A process that has trained a dense network goes on with it.
    return [
        Trial(
            network=network,
            method=method,
            label=args.label or method,
            size=size,
            steps=steps,
            rate=rate,
            seed=seed,
            settings=settings,
        )
        for network, seed, steps, size, method in product(
            args.networks, args.seeds, args.steps, args.sizes, args.methods
        )
    ]


def _missing(args: argparse.Namespace, rows: ResultRows) -> int:
    fields = ("network", "label", "size", "steps", "seed")
    there = {tuple(row[name] for name in fields) for row in rows.read() if not row["trial"]}
    owed = [one for one in _wished(args) if tuple(asdict(one)[name] for name in fields) not in there]
    for one in owed:
        print(" ".join(f"{name}={getattr(one, name)}" for name in fields))
    print(f"{len(owed)} rows are owed", file=sys.stderr)
    return 0


def _table(args: argparse.Namespace, rows: ResultRows) -> int:
    for path in table.write(rows.read(), args.out):
        print(path)
    return 0


if __name__ == "__main__":
    one_thread()
    sys.exit(main())
