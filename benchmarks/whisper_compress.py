"""Whisper tiny.en through `l0prune compress --recipe whisper`: its encoder, and encoder and decoder together.

    python benchmarks/whisper_compress.py run --parts encoder whole --sizes 25 50 --steps 300
    python benchmarks/whisper_compress.py run --set controller.kind=lagrangian --label lagrangian
    python benchmarks/whisper_compress.py table          # results/whisper-compress.md, of all rows that are there

The clips are those of benchmarks/whisper.py. Rows are appended to results/whisper-compress.jsonl as they come; what is
there is not run again.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from l0bench.compress_rows import add_missing
from l0bench.recognition import compressed, compressed_table
from l0bench.recognition.compressed import DENSE, IDENTITY, OBJECTIVES, PARTS, Wished
from l0bench.result_rows import ResultRows, one_thread, told
from l0bench.wrap_settings import parsed

from l0prune import ConfigError

ROOT = Path(__file__).parents[1]
SOURCES = (
    "l0prune",
    "plugins/speech",
    "benchmarks/whisper_compress.py",
    ":(glob)benchmarks/l0bench/*.py",
    "benchmarks/l0bench/recognition",
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
    run.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART")
    run.add_argument("--sizes", nargs="+", type=int, default=[25, 50], help="per cent to remove")
    run.add_argument("--steps", nargs="+", type=int, default=[300], help="of the optimizer, in all")
    run.add_argument("--objective", nargs="+", default=["task"], choices=tuple(OBJECTIVES), metavar="OBJECTIVE")
    run.add_argument("--seeds", nargs="+", type=int, default=[0])
    run.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of compress, with a --label")
    run.add_argument("--label", default="recipe", help="what the settings are called in tables")
    run.add_argument("--material", type=Path, default=Path("runs/material"), help="where weights and speech are kept")
    table = commands.add_parser("table", help="make the table")
    table.set_defaults(command=_table)
    for one in commands.choices.values():
        default = ROOT / "benchmarks/results/whisper-compress.jsonl"
        one.add_argument("--out", type=Path, default=default, help="the rows")
    return parser


def _run(args: argparse.Namespace, rows: ResultRows) -> int:
    settings = dict(parsed(text) for text in args.set)
    if bool(settings) == (args.label == "recipe"):
        raise ConfigError("settings and their name go together", hint="give --set NAME=VALUE and --label NAME")
    combinations = product(args.seeds, args.objective, args.steps, args.sizes, args.parts)
    wished = [
        Wished(label=args.label, part=part, size=size, steps=steps, objective=objective, seed=seed, settings=settings)
        for seed, objective, steps, size, part in combinations
    ]
    return add_missing(
        rows, [DENSE, *wished], compressed.run, material=args.material, line=compressed_table.line, sources=SOURCES
    )


def _table(args: argparse.Namespace, rows: ResultRows) -> int:
    print(compressed_table.write(rows.read(), args.out))
    return 0


if __name__ == "__main__":
    one_thread()
    sys.exit(main())
