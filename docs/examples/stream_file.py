"""Hear an audio file as if it were a microphone: piece by piece, with what is known after each piece.

python docs/examples/stream_file.py runs/streaming talk.wav
python docs/examples/stream_file.py student.onnx talk.wav --piece-ms 30
python docs/examples/stream_file.py runs/streaming talk.wav --head ctc.safetensors

The network is a run of `l0prune compress` with speech.streaming.chunk_ms, or what `l0prune export` wrote of it in the
formats onnx-streaming and torch.export-streaming. The head is a file of safetensors: `weight` (symbols, D) and `bias`
(symbols,) of a linear layer on the last hidden state, and in its metadata `labels`, a JSON list whose first symbol is
the blank of CTC and in which "|" is a space. Without a head, the length of the last frame's vector is shown.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import soundfile
import torch
from l0prune_speech.formats import load_teacher, open_stream
from l0prune_speech.streaming import Stream, streaming
from safetensors import SafetensorError, safe_open
from torch import Tensor

import l0prune

RATE = 16_000


class Head:
    """Greedy CTC: symbols of the frames as they come.

    Args:
        path: See above.

    Raises:
        DataError: The file is something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                self.labels: list[str] = json.loads((file.metadata() or {})["labels"])
                self.weight, self.bias = file.get_tensor("weight"), file.get_tensor("bias")
        except (OSError, SafetensorError, LookupError, ValueError) as error:
            raise l0prune.DataError("not a CTC head", where=path, got=error) from error
        self._before = 0

    def __call__(self, states: Tensor) -> str:
        """states: (T, D) -> the text that they add."""
        text = ""
        for symbol in (states @ self.weight.T + self.bias).argmax(-1).tolist():
            if symbol not in (0, self._before):
                text += self.labels[symbol].replace("|", " ")
            self._before = symbol
        return text


def opened(network: Path) -> Stream:
    """A run, or an exported program, as a stream."""
    return streaming(load_teacher(str(network)).encoder) if network.is_dir() else open_stream(network)


def main() -> None:
    """Hear the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("network", type=Path, help="a run directory, or an exported .onnx or .pt2 file")
    parser.add_argument("audio", type=Path, help="a file at 16 kHz")
    parser.add_argument("--head", type=Path, help="a CTC head; without one, features are shown")
    parser.add_argument("--piece-ms", type=int, default=100, help="what the microphone gives at once")
    arguments = parser.parse_args()
    stream, head = opened(arguments.network), Head(arguments.head) if arguments.head else None
    frame_ms = 1000 * stream.layout.step_samples / RATE
    heard, known = 0, 0
    print(f"a frame is known {stream.layout.latency_ms:.0f} ms after its chunk began, or sooner")

    def show(states: Tensor, seconds: float) -> None:
        nonlocal known
        known += states.shape[1]
        if states.shape[1]:
            said = head(states[0]) if head else f"length {float(states[0, -1].norm()):.2f}"
            when = (
                f"heard {1000 * heard / RATE:6.0f} ms, known {known * frame_ms:6.0f} ms, took {1000 * seconds:5.1f} ms"
            )
            print(f"{when}  {said}")

    with soundfile.SoundFile(arguments.audio) as file:
        if file.samplerate != RATE:
            raise l0prune.DataError("wrong rate", where=arguments.audio, got=file.samplerate, expected=RATE)
        for piece in file.blocks(RATE * arguments.piece_ms // 1000, dtype="float32", always_2d=True):
            heard += len(piece)
            begun = time.perf_counter()
            states = stream(torch.from_numpy(piece.mean(1)))
            show(states, time.perf_counter() - begun)
    begun = time.perf_counter()
    states = stream.flush()
    show(states, time.perf_counter() - begun)


if __name__ == "__main__":
    try:
        main()
    except l0prune.L0PruneError as error:
        sys.exit(f"error: {error}")
