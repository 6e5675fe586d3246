"""A family of small encoders of energies in bands, in a package of its own; importing it registers the family."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from l0prune_speech.families import Answer, Family, Heard, Inputs, SpeechNetwork, Wish, register_family
from torch import Tensor, nn

_STEP = 320


class BandEncoder(nn.Module):
    """Two layers on the magnitudes of spectra: (B, T, 161) -> hidden states of each."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.first = nn.Linear(_STEP // 2 + 1, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, bands: Tensor) -> list[Tensor]:
        first = self.first(bands)
        return [first, first + self.down(self.up(first).relu())]


class BandNetwork(SpeechNetwork):
    """A `BandEncoder` and its spectra."""

    def inputs(self, clips: Sequence[Tensor]) -> dict[str, Tensor]:
        longest = max(map(len, clips)) // _STEP * _STEP
        padded = torch.stack([nn.functional.pad(clip, (0, max(0, longest - len(clip))))[:longest] for clip in clips])
        bands = torch.fft.rfft(padded.unflatten(1, (-1, _STEP))).abs()
        return {"bands": bands, "frames": torch.tensor([len(clip) // _STEP for clip in clips])}

    def hear(self, model: nn.Module, inputs: Inputs, answers: Sequence[Answer] | None = None) -> Heard:
        states = tuple(model(inputs["bands"]))
        count = torch.arange(states[0].shape[1], device=states[0].device)
        return Heard(states=states, frames=count < inputs["frames"][:, None])


def _network(name: str, model: nn.Module, architecture: Mapping[str, Any]) -> SpeechNetwork:
    return BandNetwork(family="band-encoder", name=name, model=model.eval(), architecture=architecture)


def _build(architecture: Mapping[str, Any]) -> nn.Module:
    return BandEncoder(architecture["width"], architecture["inner"])


def _open(folder: Path, wish: Wish) -> SpeechNetwork:
    architecture = json.loads((folder / "bands.json").read_text())
    model = _build(architecture)
    model.load_state_dict(torch.load(folder / "bands.pt", weights_only=True))
    return _network(str(folder), model, architecture)


def _around(model: nn.Module, architecture: Mapping[str, Any], folder: Path) -> SpeechNetwork:
    return _network(str(folder), model, architecture)


def _recognises(path: Path) -> bool:
    return (path / "bands.json").is_file()


register_family(
    Family(
        name="band-encoder",
        description="two layers on bands",
        open=_open,
        build=_build,
        around=_around,
        recognises=_recognises,
    )
)
