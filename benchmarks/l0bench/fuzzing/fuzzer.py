"""All readers in turns, each for the same time; any input can be made again by seed, reader and number."""

import random
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from l0bench.fuzzing.changes import Changed, changed
from l0bench.fuzzing.children import Batch, read_batch
from l0bench.fuzzing.past import PAST
from l0bench.fuzzing.readers import READERS
from l0bench.fuzzing.samples import make_samples

_TURN_SECONDS = 4.0
_ENOUGH = 10**9


class Fuzzer:
    """Samples, and inputs made of them.

    Args:
        folder: An empty folder, for the samples.
        seed: Of all changes.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        make_samples(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.expected = {name: repr(reader.read(folder)) for name, reader in READERS.items()}
        self._whole = {name: (folder / reader.file).read_bytes() for name, reader in READERS.items()}

    def input(self, name: str, number: int) -> Changed:
        """The content of an input."""
        chance = random.Random(f"{self.seed} {name} {number}")
        return changed(READERS[name].form, self._whole[name], chance)

    def replay(self) -> Iterator[tuple[str, Batch]]:
        """Read what once was a fault; its name, and what became of it."""
        for label, (name, change) in PAST.items():
            content = Changed(content=change(self._whole[name]), resealed=True)
            yield label, self._read(name, lambda _number, content=content: content, range(1), 60.0)

    def one(self, name: str, number: int) -> Batch:
        """Read one input."""
        return self._read(name, lambda _number: self.input(name, number), range(1), 60.0)

    def turns(self, seconds: float, begun: dict[str, int]) -> Iterator[tuple[str, Batch]]:
        """Read inputs of all readers in turns, for some time.

        Args:
            seconds: How long.
            begun: By reader, how many inputs of this seed were read before.
        """
        end = time.monotonic() + seconds
        turn = min(_TURN_SECONDS, seconds / len(READERS))
        numbers = {name: begun.get(name, 0) for name in READERS}
        while time.monotonic() < end:
            for name in READERS:
                make = lambda number, name=name: self.input(name, number)  # noqa: E731
                batch = self._read(name, make, range(numbers[name], _ENOUGH), turn)
                numbers[name] = batch.next
                yield name, batch

    def _read(self, name: str, make, numbers: range, seconds: float) -> Batch:
        return read_batch(READERS[name], self.folder, self.expected[name], make, numbers, seconds)
