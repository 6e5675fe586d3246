"""A folder that is an s3prl upstream: expert.py, hubconf.py, the encoder's code and its checkpoint."""

import shutil
from pathlib import Path

import torch

from l0prune_speech.encoder import modules
from l0prune_speech.formats.checkpoint import Checkpoint

_HUBCONF = '''"""Entry point for s3prl and torch.hub."""

from pathlib import Path as _Path

try:
    from .expert import UpstreamExpert as _UpstreamExpert
except ImportError:
    from expert import UpstreamExpert as _UpstreamExpert


def l0prune_student(ckpt=None, *args, **kwargs):
    """The upstream of the encoder in this folder, or of another one's model.pt."""
    return _UpstreamExpert(ckpt or str(_Path(__file__).with_name("model.pt")), *args, **kwargs)
'''


def to_s3prl(checkpoint: Checkpoint, folder: Path) -> list[str]:
    """Write an upstream into an empty folder; returns what had to be supplied."""
    torch.save({"config": dict(checkpoint.config), "state_dict": dict(checkpoint.tensors)}, folder / "model.pt")
    shutil.copyfile(modules.__file__, folder / "encoder.py")
    shutil.copyfile(Path(__file__).with_name("s3prl_expert.py"), folder / "expert.py")
    (folder / "hubconf.py").write_text(_HUBCONF, encoding="utf-8")
    return []
