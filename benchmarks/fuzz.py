"""Damaged and hostile files: does each end as before, or in one line of an `L0PruneError`?

    python benchmarks/fuzz.py --minutes 10 --seed 0
    python benchmarks/fuzz.py --seed 0 --input "metrics.jsonl" 1234     # one input, made and read again

Small files of every kind that l0prune reads are changed at random and read in child processes with bounds on time and
memory. What is counted: `same`, read as before; `refused`, by one line; `changed`, read as what the change says where
no checksum tells of it; and the faults `other` (read as something else in spite of a checksum), `traceback`, `crash`,
`hang` and `memory`. Inputs that once were faults are read first, by name. Another run with the same seed goes on where
the last one ended; the results hold the sum of all runs.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from l0bench.fuzzing.children import FAULTS, Batch
from l0bench.fuzzing.counts import Counts
from l0bench.fuzzing.fuzzer import Fuzzer
from l0bench.fuzzing.readers import READERS

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Replay what once was a fault, change files for some minutes, print and write the counts."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--input", nargs=2, metavar=("READER", "NUMBER"), help="write and read this one alone")
    arguments.add_argument("--out", type=Path, default=RESULTS / "fuzz.json")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        fuzzer = Fuzzer(folder, options.seed)
        if options.input:
            _again(fuzzer, options.input[0], int(options.input[1]))
            return
        for label, batch in fuzzer.replay():
            _tell(label, batch)
        counts = Counts(options.out)
        for name, batch in fuzzer.turns(60 * options.minutes, counts.begun(options.seed)):
            _tell(name, batch)
            counts.add(options.seed, name, batch)
            if name == [*READERS][-1]:
                counts.write()
    finally:
        shutil.rmtree(folder)
    print(counts.table(), end="")


def _tell(what: str, batch: Batch) -> None:
    for fault in batch.faults:
        print(f"{what}: {fault}", flush=True)


def _again(fuzzer: Fuzzer, name: str, number: int) -> None:
    place = Path(f"input-{number}-{Path(READERS[name].file).name}")
    place.write_bytes(fuzzer.input(name, number).content)
    batch = fuzzer.one(name, number)
    print(f"{place}: {', '.join(outcome for outcome, times in batch.counts.items() if times)}")
    _tell(name, batch)
    raise SystemExit(any(batch.counts[fault] for fault in FAULTS))


if __name__ == "__main__":
    main()
