"""What runs the programs of an exported folder: onnxruntime, or torch for programs of torch.export."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from l0prune import ConfigError, DataError
from l0prune.measuring import quantized
from l0prune.support import check_stamp


class Runner(Protocol):
    """Runs programs by name."""

    def __call__(self, program: str, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """Inputs, in the program's order -> outputs."""
        ...


class OnnxRunner:
    """Files of a folder, in onnxruntime on the CPU.

    Args:
        folder: Holds `NAME.onnx`.
        threads: Of the CPU; torch's number by default.
        int8: A folder for files whose linear layers are quantised dynamically; none for float32.
    """

    def __init__(self, folder: Path, *, threads: int | None = None, int8: Path | None = None) -> None:
        self.folder, self.threads, self.int8 = folder, threads or torch.get_num_threads(), int8
        self._sessions: dict[str, Any] = {}

    def __call__(self, program: str, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """As `Runner`'s."""
        session = self._session(program)
        feeds = {value.name: tensor.cpu().numpy() for value, tensor in zip(session.get_inputs(), given, strict=True)}
        return [torch.from_numpy(np.asarray(array)) for array in session.run(None, feeds)]

    def _session(self, program: str) -> Any:
        if program not in self._sessions:
            self._sessions[program] = self._opened(self.folder / f"{program}.onnx")
        return self._sessions[program]

    def _opened(self, path: Path) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            hint = "pip install 'l0prune[onnx]'"
            raise ConfigError("ONNX files need onnxruntime", where=path, got=error, hint=hint) from error
        check_stamp(path)
        if self.int8 is not None:
            path = quantized(path, self.int8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        # Its threads would go on spinning beside whoever is timed next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            got = " ".join(str(error).split())[-200:]
            raise DataError("onnxruntime cannot take the file", where=path, got=got) from error


class TorchRunner:
    """Files of a folder, by torch.export.

    Args:
        folder: Holds `NAME.pt2`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = cache(self._opened)

    def __call__(self, program: str, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """As `Runner`'s."""
        with torch.no_grad():
            found = self._program(program)(*given)
        return [found] if isinstance(found, Tensor) else found

    def _opened(self, program: str) -> Any:
        path = self.folder / f"{program}.pt2"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.export.load(path).module()
        except Exception as error:
            got = " ".join(str(error).split())[:200]
            raise DataError("torch.export cannot open the file", where=path, got=got) from error


def runner_for(folder: Path, programs: Mapping[str, Any]) -> Runner:
    """What runs the programs that are in a folder.

    Raises:
        DataError: One of them is missing.
    """
    for suffix, kind in ((".onnx", OnnxRunner), (".pt2", TorchRunner)):
        found = [name for name in programs if (folder / f"{name}{suffix}").is_file()]
        if len(found) == len(programs):
            return kind(folder)
        if found:
            missing = next(name for name in programs if name not in found)
            raise DataError("a file of the export is missing", where=folder, expected=f"{missing}{suffix}")
    expected = ", ".join(f"{name}.onnx" for name in programs)
    raise DataError("no programs in the folder", where=folder, expected=expected)
