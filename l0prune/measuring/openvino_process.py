"""OpenVINO in a process of its own: training with torch where it had run has ended in a segmentation fault.

As a program this module compiles an ONNX file and then answers requests, a JSON object a line, until there are no more.
"""

import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from safetensors.numpy import load_file, save_file

from l0prune.support import python

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
"""What OpenVINO calls the dtypes that are measured in it."""
_TELEMETRY = "openvino_telemetry"


class OpenVinoProcess:
    """A file in OpenVINO, on the CPU, until nobody refers to it.

    Args:
        path: The ONNX file, in float32.
        dtype: Of `PRECISIONS`. Inputs and outputs stay float32.
        threads: Of the CPU.

    Raises:
        RuntimeError: OpenVINO cannot take the file.
    """

    def __init__(self, path: Path, dtype: str, threads: int) -> None:
        command = python("-m", __name__, str(path), PRECISIONS[dtype], str(threads))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        weakref.finalize(self, _end, self.process)
        self._given = 0
        self.inputs: Sequence[str] = self._answer()["inputs"]
        """Names, in the file's order."""

    def prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        """Hand inputs over, by name; what is returned computes with them and leaves the output where it is."""
        request = {"run": self._give(feeds)}
        return lambda: self._ask(request)

    def output(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """The file's first output."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "output.npy"
            self._ask({"run": self._give(feeds), "save": str(path)})
            return np.load(path, allow_pickle=False)

    def _give(self, feeds: Mapping[str, np.ndarray]) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "inputs.safetensors"
            save_file(dict(feeds), path)
            self._ask({"take": str(path)})
        self._given += 1
        return self._given - 1

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self.process.stdin is not None
        try:
            print(json.dumps(request), file=self.process.stdin)
        except BrokenPipeError as error:
            raise self._ended() from error
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"OpenVINO's process ended with status {self.process.wait()}")


def _end(process: subprocess.Popen[str]) -> None:
    """No more requests: it comes to its end."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    process.wait()


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which would report the import to its makers."""
    modules: dict[str, Any] = sys.modules
    # What is None cannot be imported; OpenVINO then goes without it.
    modules[_TELEMETRY] = None
    import openvino

    return openvino


def _serve(path: str, precision: str, threads: str, requests: TextIO, answers: TextIO) -> None:
    """Compile a file, say what it takes, answer requests."""

    def answer(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": int(threads),
        "INFERENCE_PRECISION_HINT": precision,
    }
    try:
        compiled = import_openvino().Core().compile_model(path, "CPU", settings)
    except Exception as error:
        answer({"error": str(error)})
        return
    answer({"inputs": [value.any_name for value in compiled.inputs]})
    feeds: list[dict[str, np.ndarray]] = []
    for line in requests:
        request = json.loads(line)
        try:
            if "take" in request:
                feeds.append(load_file(request["take"]))
            else:
                # Outputs are not copied, as in onnxruntime.
                found = compiled(feeds[request["run"]], share_inputs=True, share_outputs=True)[0]
                if "save" in request:
                    np.save(request["save"], found, allow_pickle=False)
            answer({})
        except Exception as error:
            answer({"error": str(error)})


if __name__ == "__main__":
    # What OpenVINO prints must not be taken for an answer.
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)
        _serve(*sys.argv[1:], requests=sys.stdin, answers=channel)
