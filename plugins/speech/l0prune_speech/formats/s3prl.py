"""A folder that is an s3prl upstream: expert.py, hubconf.py, the encoder's code and its checkpoint."""

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l0prune import DataError
from l0prune_speech.encoder import CODE
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.fit import named_tensors
from l0prune_speech.formats.registry import Format, Outputs, Run, register_format
from l0prune_speech.formats.source import Source

_WEIGHTS, _CODE = "model.pt", "expert.py"

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


def from_s3prl(content: Mapping[str, Any], where: object) -> Checkpoint:
    """Read the model.pt of an upstream that `to_s3prl` wrote.

    Args:
        content: `config` and `state_dict`, under the names of this package.
        where: The file, for messages.

    Raises:
        DataError: They are something else.
    """
    return Checkpoint(config=content["config"], tensors=named_tensors(content["state_dict"], where))


def to_s3prl(checkpoint: Checkpoint, folder: Path, _card: str = "") -> list[str]:
    """Write an upstream into an empty folder; returns what had to be supplied."""
    torch.save({"config": dict(checkpoint.config), "state_dict": dict(checkpoint.tensors)}, folder / _WEIGHTS)
    shutil.copyfile(CODE, folder / "encoder.py")
    shutil.copyfile(Path(__file__).with_name("s3prl_expert.py"), folder / _CODE)
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


def _claims(source: Source) -> bool:
    if source.path.is_dir():
        return source.has(_WEIGHTS, _CODE)
    return source.holds(config=Mapping, state_dict=Mapping) and "family" in source.content["config"]


def _read(source: Source) -> Checkpoint:
    path = source.path
    if path.is_dir():
        path = path / _WEIGHTS
        source = Source(path)
        if not _claims(source):
            raise source.refusal or DataError("not the model.pt of an s3prl export", where=path)
    return from_s3prl(source.content, path)


register_format(
    Format(
        name="s3prl",
        reads="a folder that was exported for s3prl",
        claims=_claims,
        read=_read,
        holds="a folder that is an s3prl upstream, for SUPERB; needs torch and torchaudio alone",
        write=to_s3prl,
        open=open_s3prl,
        opened_by="the code that the folder brings along, imported as s3prl does",
    )
)
