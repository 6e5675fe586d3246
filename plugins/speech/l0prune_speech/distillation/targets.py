"""What the teacher says of a batch: hidden states, means of them, relations; computed or read from a cache on disk.

Legend: B batch, T frames, E teacher width, M matched layers.
"""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from l0prune import DataError, write_atomic
from l0prune.support import free_bytes
from l0prune_speech.encoder import Recording, SpeechEncoder, record

_DAMAGE = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile)


Wanted = int | str
"""A hidden state by its layer, or "map 4", "values 4" (of layer 4), "mean 1 2 3" (of the states of these layers)."""


class Targets:
    """What a frozen teacher says of batches.

    Args:
        teacher: In evaluation mode.
        layers: M layers whose hidden states are wanted by default, ascending; 0 is the projected CNN output.
        cache: Where they are kept.
    """

    def __init__(self, teacher: SpeechEncoder, layers: Sequence[int], cache: "TargetCache | None" = None) -> None:
        self.teacher, self.layers, self.cache = teacher, tuple(layers), cache

    def __call__(
        self,
        batch: Tensor,
        waveforms: Tensor,
        wanted: Sequence[Wanted] | None = None,
        lengths: Tensor | None = None,
    ) -> dict[Wanted, Tensor]:
        """Hidden states and means of them (B, T, E), and relations (B, T, T).

        Args:
            batch: Waveforms (B, samples) as they were read.
            waveforms: The same on the teacher's device.
            wanted: What of; the hidden states of the layers by default.
            lengths: (B,) valid samples; all by default. Padded batches are not kept.
        """
        wanted = self.layers if wanted is None else tuple(wanted)
        if self.cache is None or batch.device.type != "cpu" or lengths is not None:
            return self._compute(waveforms, wanted, lengths)
        dtype = torch.get_autocast_dtype(waveforms.device.type) if _autocast(waveforms) else torch.float32
        # By default as before there was more to want: caches of then are of use.
        key = self.cache.key(batch, dtype, "" if wanted == self.layers else repr(wanted))
        found = self.cache.read(key, dtype, wanted)
        if found is not None:
            return {name: target.to(waveforms.device, non_blocking=True) for name, target in found.items()}
        computed = self._compute(waveforms, wanted, None)
        targets = {name: target.to(_kept_as(name, dtype)) for name, target in computed.items()}
        self.cache.write(key, targets)
        return targets

    def _compute(self, waveforms: Tensor, wanted: Sequence[Wanted], lengths: Tensor | None) -> dict[Wanted, Tensor]:
        parts = {name: _layers_of(name) for name in wanted}
        maps, values = (
            [layers[0] for name, layers in parts.items() if _kind(name) == kind] for kind in ("map", "values")
        )
        with torch.inference_mode():
            depth = max((layer for layers in parts.values() for layer in layers), default=0)
            heard = record(self.teacher, waveforms, depth=depth, lengths=lengths, maps=maps, values=values)
            found = {name: _target(heard, _kind(name), layers) for name, layers in parts.items()}
        # Copies: autograd cannot keep tensors of inference mode.
        return {name: target.clone() for name, target in found.items() if target is not None}


def _kind(name: Wanted) -> str:
    return "state" if isinstance(name, int) else name.split()[0]


def _layers_of(name: Wanted) -> list[int]:
    return [name] if isinstance(name, int) else [int(layer) for layer in name.split()[1:]]


def _target(heard: Recording, kind: str, layers: Sequence[int]) -> Tensor | None:
    """One target; None of a relation in a layer without attention."""
    if kind == "state":
        return heard.states[layers[0]]
    if kind == "mean":
        return torch.stack([heard.states[layer] for layer in layers]).mean(0)
    return (heard.maps if kind == "map" else heard.values).get(layers[0])


def _kept_as(name: Wanted, dtype: torch.dtype) -> torch.dtype:
    """Probabilities stay as they are."""
    return torch.float32 if _kind(name) in ("map", "values") else dtype


class TargetCache:
    """Targets on disk, found by the content of their batch: whatever comes again need not be computed again.

    Each entry carries checksums; one that is damaged counts as absent. Steps 1 and 2 and later runs share them.

    Args:
        folder: Where; may be shared by several teachers and processes.
        teacher: Distinguishes the entries of one teacher and choice of layers.
        most_bytes: Once the folder holds this much, nothing is added.
    """

    def __init__(self, folder: Path, teacher: str, most_bytes: int) -> None:
        self.folder, self.teacher, self.most_bytes = folder, teacher, most_bytes
        self.bytes = sum(path.stat().st_size for path in folder.glob("*/*.npz")) if folder.is_dir() else 0

    def key(self, batch: Tensor, dtype: torch.dtype, wanted: str = "") -> str:
        """The name of a batch's entry. batch: (B, samples); wanted: what of, where it is not the matched layers."""
        about = f"{self.teacher} {dtype} {tuple(batch.shape)}" + (f" {wanted}" if wanted else "")
        digest = hashlib.blake2b(about.encode(), digest_size=16)
        digest.update(batch.contiguous().numpy().data)
        return digest.hexdigest()

    def read(self, key: str, dtype: torch.dtype, wanted: Sequence[Wanted]) -> dict[Wanted, Tensor] | None:
        """Targets by name, or None where there is no whole entry."""
        states = [name for name in wanted if isinstance(name, int)]
        try:
            with self._path(key).open("rb") as file, np.load(file, allow_pickle=False) as content:
                found: dict[Wanted, Tensor] = {}
                if states:
                    stacked = torch.from_numpy(content["states"]).view(dtype)
                    found |= dict(zip(states, stacked, strict=True))
                for name in wanted:
                    if isinstance(name, str) and name in content.files:
                        found[name] = torch.from_numpy(content[name]).view(_kept_as(name, dtype))
                return found
        except _DAMAGE:
            return None

    def write(self, key: str, targets: Mapping[Wanted, Tensor]) -> None:
        """Keep targets, if there is room."""
        if self.bytes + sum(target.numel() * target.element_size() for target in targets.values()) > self.most_bytes:
            return
        arrays = {name: _plain(target) for name, target in targets.items() if isinstance(name, str)}
        # (M, B, T, E).
        if states := [target for name, target in targets.items() if isinstance(name, int)]:
            arrays["states"] = _plain(torch.stack(states))
        write_atomic(self._path(key), lambda path: np.savez(path, **arrays))  # pyright: ignore[reportArgumentType]
        self.bytes += self._path(key).stat().st_size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"


def _plain(tensor: Tensor) -> np.ndarray:
    """numpy knows no bfloat16."""
    return tensor.cpu().view(torch.int16 if tensor.element_size() == 2 else torch.int32).numpy()


def teacher_digest(teacher: nn.Module, layers: Sequence[int]) -> str:
    """Fingerprint of a teacher's weights and of the layers that are matched."""
    digest = hashlib.blake2b(repr(tuple(layers)).encode(), digest_size=16)
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def check_room(folder: Path, needed_bytes: int) -> None:
    """Check that the cache will fit on the disk.

    Raises:
        DataError: It will not.
    """
    held = sum(path.stat().st_size for path in folder.glob("*/*.npz")) if folder.is_dir() else 0
    free = free_bytes(folder) + held
    if free < needed_bytes:
        raise DataError(
            "too little disk for the teacher's cache",
            where=folder,
            got=f"{free / 1e9:.1f} GB free",
            expected=f"{needed_bytes / 1e9:.1f} GB",
            hint="lower speech.crop_epochs or speech.cache_gigabytes, or leave speech.cache empty",
        )


def _autocast(waveforms: Tensor) -> bool:
    return torch.is_autocast_enabled(waveforms.device.type)
