"""Windows with the dense encoder's states beside them, computed once and kept on disk: no step runs the teacher.

Legend: W windows, B windows of a batch, L states (what the layers are given, and the output), T frames, D width.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from l0bench.recognition.prompt_sets import Window
from l0bench.recognition.recogniser import Recogniser
from l0prune import DataError, assembled, write_json

_AT_ONCE = 8


class Windows:
    """A set of windows: spectra, transcripts, states of the dense encoder.

    Args:
        folder: What `keep` made; its arrays are mapped, so that processes share them.

    Raises:
        DataError: It cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        try:
            facts = json.loads((folder / "windows.json").read_text(encoding="utf-8"))
            self._features = np.load(folder / "features.npy", mmap_mode="r")
            self._states = [np.load(folder / f"state-{i}.npy", mmap_mode="r") for i in range(facts["states"])]
        except (OSError, ValueError, KeyError) as error:
            raise DataError("cannot read the windows", where=folder, got=error, hint="remove the folder") from error
        self.texts: list[str] = facts["texts"]
        self.tokens: list[list[int]] = facts["tokens"]

    def __len__(self) -> int:
        return len(self.texts)

    def features(self, chosen: Sequence[int]) -> Tensor:
        """(B, M, F) float32."""
        return torch.from_numpy(self._features[list(chosen)])

    def states(self, chosen: Sequence[int], *, last_only: bool = False) -> list[Tensor]:
        """L tensors (B, T, D) float32: the last one alone, if the others are not needed."""
        kept = self._states[-1:] if last_only else self._states
        return [torch.from_numpy(states[list(chosen)]).float() for states in kept]

    def in_turn(self, at_once: int) -> Iterator[range]:
        """All windows once, in order, some at once."""
        for first in range(0, len(self), at_once):
            yield range(first, min(first + at_once, len(self)))

    def batches(self, size: int, seed: int) -> Iterator[list[int]]:
        """Random batches without end: every window once before any comes again."""
        generator, waiting = np.random.default_rng(seed), []
        while True:
            while len(waiting) < size:
                waiting += generator.permutation(len(self)).tolist()
            yield waiting[:size]
            waiting = waiting[size:]


def kept(name: str, windows: Sequence[Window], recogniser: Recogniser, material: Path) -> Windows:
    """The windows with the dense encoder's states; they are computed at first use.

    Args:
        name: Of the set.
        windows: What it holds; another content is another folder.
        recogniser: Its encoder must be the dense one.
        material: The folder that keeps it.
    """
    content = "\n".join(f"{window.name}\t{len(window.samples)}\t{window.text}" for window in windows)
    folder = material / "windows" / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if not folder.exists():
        with assembled(folder) as made:
            made.mkdir()
            keep_states(windows, recogniser, made)
    return Windows(folder)


@torch.no_grad()
def keep_states(windows: Sequence[Window], recogniser: Recogniser, folder: Path) -> None:
    """Compute the states of some windows and write them to a folder."""
    features = [recogniser.features([w.samples for w in windows[i : i + 64]]) for i in range(0, len(windows), 64)]
    spectra = torch.cat(features)
    states: list[list[np.ndarray]] = []
    for first in range(0, len(windows), _AT_ONCE):
        found = recogniser.encoder(spectra[first : first + _AT_ONCE], output_hidden_states=True).hidden_states
        # Half precision rounds by a two-thousandth: far below what pruning changes.
        states.append([state.half().numpy() for state in found])
    np.save(folder / "features.npy", spectra.numpy())
    for number, parts in enumerate(zip(*states, strict=True)):
        np.save(folder / f"state-{number}.npy", np.concatenate(parts))
    texts = [window.text for window in windows]
    facts = {"states": len(states[0]), "texts": texts, "tokens": [recogniser.tokens(text) for text in texts]}
    write_json(folder / "windows.json", facts)
