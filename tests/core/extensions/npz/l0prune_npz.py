"""A checkpoint format of one's own: an archive of numpy, for those who have no torch."""

import json
from pathlib import Path

import numpy as np
import torch
from l0prune_speech.formats import Checkpoint, Format, Run, Source, register_format, to_encoder

CONFIG = "config.json"


def claims(source: Source) -> bool:
    """Whether a file is such an archive."""
    return source.path.is_file() and source.path.suffix == ".npz"


def read(source: Source) -> Checkpoint:
    """Read configuration and tensors."""
    with np.load(source.path, allow_pickle=False) as content:
        tensors = {name: torch.from_numpy(content[name]) for name in content.files if name != CONFIG}
        return Checkpoint(config=json.loads(str(content[CONFIG])), tensors=tensors)


def write(checkpoint: Checkpoint, path: Path, _card: str) -> list[str]:
    """Write them; nothing has to be supplied."""
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    with path.open("wb") as file:
        np.savez(file, **{CONFIG: np.array(json.dumps(dict(checkpoint.config)))}, **arrays)
    return []


def open_archive(path: Path) -> Run:
    """Hidden states of waveforms, as those who read the archive compute them."""
    encoder = to_encoder(read(Source(path)), path)
    return lambda waveforms, lengths: encoder.hidden_states(waveforms, None, lengths)


register_format(
    Format(
        name="npz",
        reads="an .npz of numpy",
        claims=claims,
        read=read,
        holds="numpy's arrays by name, and the configuration as JSON",
        suffix=".npz",
        write=write,
        open=open_archive,
        opened_by="l0prune_npz",
    )
)
