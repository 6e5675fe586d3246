"""What the teacher says of a batch: its hidden states at the matched layers, computed or read from a cache on disk.

Legend: B batch, T frames, E teacher width, M matched layers.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from l0prune import DataError, write_atomic
from l0prune.support import free_bytes
from l0prune_speech.encoder import SpeechEncoder

_DAMAGE = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile)


class Targets:
    """Hidden states of a frozen teacher.

    Args:
        teacher: In evaluation mode.
        layers: M layers to match, ascending; 0 is the projected CNN output.
        cache: Where they are kept.
    """

    def __init__(self, teacher: SpeechEncoder, layers: Sequence[int], cache: "TargetCache | None" = None) -> None:
        self.teacher, self.layers, self.cache = teacher, tuple(layers), cache

    def __call__(self, batch: Tensor, waveforms: Tensor) -> dict[int, Tensor]:
        """The hidden states of each layer, (B, T, E).

        Args:
            batch: Waveforms (B, samples) as they were read.
            waveforms: The same on the teacher's device.
        """
        if self.cache is None or batch.device.type != "cpu":
            return self._compute(waveforms)
        dtype = torch.get_autocast_dtype(waveforms.device.type) if _autocast(waveforms) else torch.float32
        key = self.cache.key(batch, dtype)
        found = self.cache.read(key, dtype)
        if found is not None:
            return dict(zip(self.layers, found.to(waveforms.device, non_blocking=True), strict=True))
        states = {layer: state.to(dtype) for layer, state in self._compute(waveforms).items()}
        self.cache.write(key, torch.stack([states[layer] for layer in self.layers]))
        return states

    def _compute(self, waveforms: Tensor) -> dict[int, Tensor]:
        with torch.inference_mode():
            states = self.teacher.hidden_states(waveforms, max(self.layers))
        # Copies: autograd cannot keep tensors of inference mode.
        return {layer: states[layer].clone() for layer in self.layers}


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

    def key(self, batch: Tensor, dtype: torch.dtype) -> str:
        """The name of a batch's entry. batch: (B, samples)."""
        digest = hashlib.blake2b(f"{self.teacher} {dtype} {tuple(batch.shape)}".encode(), digest_size=16)
        digest.update(batch.contiguous().numpy().data)
        return digest.hexdigest()

    def read(self, key: str, dtype: torch.dtype) -> Tensor | None:
        """Targets (M, B, T, E), or None where there is no whole entry."""
        try:
            with self._path(key).open("rb") as file, np.load(file, allow_pickle=False) as content:
                return torch.from_numpy(content["states"]).view(dtype)
        except _DAMAGE:
            return None

    def write(self, key: str, states: Tensor) -> None:
        """Keep targets (M, B, T, E), if there is room."""
        if self.bytes + states.numel() * states.element_size() > self.most_bytes:
            return
        # numpy knows no bfloat16.
        plain = states.cpu().view(torch.int16 if states.element_size() == 2 else torch.int32).numpy()
        write_atomic(self._path(key), lambda path: np.savez(path, states=plain))
        self.bytes += self._path(key).stat().st_size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"


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
