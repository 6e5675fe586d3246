"""A folder that is an s3prl upstream: expert.py, hubconf.py, the encoder's code and its checkpoint."""

import importlib.util
import shutil
import sys
from pathlib import Path

import torch
from torch import Tensor

from l0prune_speech.encoder import CODE
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.way import Outputs, Run

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
    shutil.copyfile(CODE, folder / "encoder.py")
    shutil.copyfile(Path(__file__).with_name("s3prl_expert.py"), folder / "expert.py")
    (folder / "hubconf.py").write_text(_HUBCONF, encoding="utf-8")
    return []


def open_s3prl(folder: Path) -> Run:
    """The upstream as s3prl imports it: a package's module."""
    package = importlib.util.spec_from_file_location(
        "_l0prune_upstream", folder / "hubconf.py", submodule_search_locations=[str(folder)]
    )
    assert package is not None
    assert package.loader is not None
    hubconf = importlib.util.module_from_spec(package)
    sys.modules[package.name] = hubconf
    try:
        package.loader.exec_module(hubconf)
        expert = hubconf.l0prune_student().eval()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
            del sys.modules[name]

    def run(waveforms: Tensor, lengths: Tensor) -> Outputs:
        clips = [waveform[:length] for waveform, length in zip(waveforms, lengths.tolist(), strict=True)]
        return expert(clips)["hidden_states"]

    return run
