"""Damaged and hostile files: does each end as before, or in one line of an `L0PruneError`?

    python benchmarks/fuzz.py --minutes 10 --seed 0

Small files of every kind that l0prune reads are changed at random and read in child processes with bounds on time and
memory. What is counted: `same`, read as before; `refused`, by one line; `other`, read as something else; and the
faults `traceback`, `crash`, `hang` and `memory`. Inputs that once were faults are read first, by name.
"""

import argparse
import faulthandler
import hashlib
import json
import os
import pickle
import random
import resource
import select
import shutil
import signal
import struct
import tempfile
import time
import tomllib
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from l0prune_speech.data import find_clips, read
from l0prune_speech.encoder import build_encoder, encoder_groups
from l0prune_speech.formats import from_encoder, load_teacher, to_dphubert, to_huggingface
from l0prune_speech.probes.corpora import open_sets
from safetensors.torch import save_file

import l0prune
from l0prune.errors import L0PruneError
from l0prune.removal import apply_plan, make_plan
from l0prune.report import run_facts
from l0prune.storage import newest_checkpoint, save_checkpoint
from l0prune.support import model_shapes, write_toml

RESULTS = Path(__file__).parent / "results"
SECONDS, BYTES = 10, 2 * 10**9
"""Of a child process: time, and memory beyond what its parent has."""
FAULTS = ("traceback", "crash", "hang", "memory")
OUTCOMES = ("same", "refused", "other", *FAULTS)
TEACHER: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [[8, 10, 5], [8, 3, 2]],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 2,
    "encoder_num_heads": 4,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 16,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.0,
    "aux_num_out": None,
}
NASTY: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 10**6, 2**31, 2**63, 10**30, int("9" * 4000), 0.5, 1e308, float("nan"), float("inf")),
    *("", "x" * 5000, "../../x.safetensors", "/dev/zero", "\0", "é\ud83d", [], {}, [[]], [1] * 1000, {"a": {}}),
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file."""

    file: str
    """Which one is changed, below the folder of samples."""
    read: Callable[[Path], object]
    """Reads it, given that folder; what it returns tells whether it was read as before."""
    tree: str = ""
    """How its tree of values is written: "json", "lines", "toml" or "header"; empty where only bytes are changed."""


def weights(module: torch.nn.Module) -> str:
    """Digest of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _teacher(name: str) -> Callable[[Path], object]:
    return lambda folder: weights(load_teacher(str(folder / name)).encoder)


def _run(folder: Path) -> object:
    return run_facts(folder / "run", "run").to_json()


def _sound(name: str) -> Callable[[Path], object]:
    def heard(folder: Path) -> object:
        clips = find_clips([folder / name], min_seconds=0.0).clips
        return [hashlib.sha256(read(clip).numpy().tobytes()).hexdigest() for clip in clips]

    return heard


KINDS: dict[str, Kind] = {
    "safetensors": Kind(file="teacher.safetensors", read=_teacher("teacher.safetensors"), tree="header"),
    "pickle": Kind(file="student.pth", read=_teacher("student.pth")),
    "Hugging Face config.json": Kind(file="hf/config.json", read=_teacher("hf"), tree="json"),
    "Hugging Face index": Kind(file="hf/model.safetensors.index.json", read=_teacher("hf"), tree="json"),
    "model.json": Kind(file="run/model.json", read=lambda folder: weights(l0prune.load(folder / "run")), tree="json"),
    "weights of a run": Kind(
        file="run/model.safetensors", read=lambda folder: weights(l0prune.load(folder / "run")), tree="header"
    ),
    "model.json, reported": Kind(file="run/model.json", read=_run, tree="json"),
    "report.json": Kind(file="run/report.json", read=_run, tree="json"),
    "metrics.jsonl": Kind(file="run/metrics.jsonl", read=_run, tree="lines"),
    "config.toml": Kind(file="run/config.toml", read=_run, tree="toml"),
    "evaluation.json": Kind(file="run/evaluation.json", read=_run, tree="json"),
    "bench.json": Kind(file="run/bench.json", read=_run, tree="json"),
    "checkpoint": Kind(
        file="checkpoints/step-00000003.pt", read=lambda folder: repr(newest_checkpoint(folder / "checkpoints"))
    ),
    "manifest.tsv": Kind(
        file="clips.tsv", read=lambda folder: repr(find_clips([folder / "clips.tsv"], min_seconds=0.0))
    ),
    "manifest.json": Kind(
        file="clips/manifest.json", read=lambda folder: repr(open_sets([str(folder / "clips")])), tree="json"
    ),
    "wav": Kind(file="clips/one.wav", read=_sound("clips/one.wav")),
    "flac": Kind(file="clips/two.flac", read=_sound("clips/two.flac")),
}


def make_samples(folder: Path) -> None:
    """A small file of every kind."""
    torch.manual_seed(0)
    encoder = build_encoder(TEACHER).eval()
    metadata = {"format": "l0prune-speech-teacher", "config": json.dumps(TEACHER), "normalize_waveform": "false"}
    tensors = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(tensors, folder / "teacher.safetensors", metadata=metadata)
    to_dphubert(from_encoder(encoder), folder / "student.pth")
    (folder / "hf").mkdir()
    to_huggingface(from_encoder(encoder), folder / "hf", "")
    (folder / "hf" / "model.safetensors").rename(folder / "hf" / "part.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "part.safetensors")}
    _write_json(folder / "hf" / "model.safetensors.index.json", index)
    groups = encoder_groups(encoder, ("conv", "head", "ffn"))
    kept = {group.name: tuple(range(0, group.units, 2)) for group in groups}
    plan = make_plan(groups, kept, model_shapes(encoder))
    student, run = apply_plan(encoder, plan), folder / "run"
    l0prune.save(student, plan, run, plugin="speech", architecture=TEACHER)
    settings = {"plugin": "speech", "seed": 0, "joint": {"steps": 2}, "speech": {"data": ["a"]}}
    (run / "config.toml").write_text(write_toml(settings))
    report: dict[str, Any] = {"teacher": "embedded", "macs_per": "second", "versions": {"torch": "2"}, "seed": 0}
    report |= dict.fromkeys(("params_before", "params_after", "macs_before", "macs_after"), 100)
    _write_json(run / "report.json", {**report, "sparsity": 0.5, "target_sparsity": 0.5, "losses_final": {"l1": 0.1}})
    row = {"position": 1, "stage": "joint", "step": 1, "steps": 2, "loss": 0.5, "parts": {"l1": 0.5}, "sparsity": 0.1}
    (run / "metrics.jsonl").write_text("".join(json.dumps({**row, "position": i, "step": i}) + "\n" for i in (1, 2)))
    scores = [{"model": "run", "task": "phone", "mean": 0.5, "deviation": None}]
    _write_json(run / "evaluation.json", {"scores": scores, "tasks": {"phone": {"metric": "accuracy"}}, "layers": []})
    bench = {"model": "run", "load": "1 s", "dtype": "float32", "backend": "torch", "latency_ms": 1.0}
    _write_json(run / "bench.json", {"models": {"run": {}}, "rows": [bench]})
    save_checkpoint(folder / "checkpoints", 3, {"position": 3, "stage": "joint", "tensors": {"a": torch.ones(3)}})
    (folder / "clips").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    for name in ("one.wav", "two.flac"):
        soundfile.write(folder / "clips" / name, noise, 16_000)
    (folder / "clips.tsv").write_text("clips\none.wav\t4000\ntwo.flac\t4000\n")
    clips = [
        {"file": name, "split": split, "speaker": split, "phonemes": "a b"}
        for name, split in (("one.wav", "train"), ("two.flac", "unseen"))
    ]
    _write_json(folder / "clips" / "manifest.json", {"format": "l0prune-labelled-speech", "clips": clips})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """Bytes with a piece flipped, cut, repeated, replaced or inserted."""
    begin = chance.randrange(len(data) + 1)
    end = min(len(data), begin + chance.choice((1, 2, 8, 100, len(data))))
    piece = data[begin:end]
    noise = chance.randbytes(chance.choice((1, 4, 64)))
    flipped = bytes(byte ^ (1 << chance.randrange(8)) for byte in piece[:2]) + piece[2:]
    new = chance.choice((flipped, b"", piece * 3, noise, noise + piece, b"\xff" * len(piece), b"\0" * len(piece)))
    return data[:begin] + new + data[end:]


def changed_tree(tree: Any, chance: random.Random) -> Any:
    """A tree of JSON values with one of them replaced, removed, or put into many others."""
    tree = json.loads(json.dumps(tree))
    owner, key = {"": tree}, ""
    while isinstance(owner[key], dict | list) and owner[key] and chance.random() < 0.8:
        owner = owner[key]
        key = chance.choice([*owner]) if isinstance(owner, dict) else chance.randrange(len(owner))
    if chance.random() < 0.2:
        del owner[key]
    elif chance.random() < 0.1:
        for _ in range(chance.choice((50, 150, 900))):
            owner[key] = [owner[key]] if chance.random() < 0.5 else {"a": owner[key]}
    else:
        owner[key] = chance.choice(NASTY)
    return tree


def changed(kind: Kind, data: bytes, chance: random.Random) -> bytes:
    """The content of a file, changed."""
    if not kind.tree or chance.random() < 0.3:
        return changed_bytes(data, chance)
    try:
        return _written(kind.tree, data, chance)
    except (RecursionError, TypeError, ValueError):
        # What this form cannot hold, another change will.
        return changed_bytes(data, chance)


def _written(form: str, data: bytes, chance: random.Random) -> bytes:
    if form == "header":
        length = struct.unpack("<Q", data[:8])[0]
        header = json.dumps(changed_tree(json.loads(data[8 : 8 + length]), chance)).encode()
        return struct.pack("<Q", len(header)) + header + data[8 + length :]
    if form == "lines":
        rows = data.splitlines()
        row = chance.randrange(len(rows))
        rows[row] = json.dumps(changed_tree(json.loads(rows[row]), chance)).encode()
        return b"\n".join(rows) + b"\n"
    if form == "toml":
        return write_toml(changed_tree(tomllib.loads(data.decode()), chance)).encode()
    tree = json.loads(data)
    # Checksums would notice every change before anything else looks at it.
    tree.pop("sha256", None)
    return json.dumps(changed_tree(tree, chance)).encode()


def _archive(data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", compression) as made:
            made.writestr("archive/data.pkl", data)
            made.writestr("archive/version", "3\n")
        file.seek(0)
        return file.read()


def _edited(**changes: Any) -> Callable[[bytes], bytes]:
    """The architecture of a model.json with other values."""

    def edit(data: bytes) -> bytes:
        tree = json.loads(data)
        del tree["sha256"]
        tree["architecture"] |= changes
        return json.dumps(tree).encode()

    return edit


def _wide(data: bytes) -> bytes:
    tree = json.loads(data)
    del tree["sha256"]
    for place in tree["plan"]["groups"][0]["places"]:
        place["index"] = {"offset": 0, "width": 10**6}
    return json.dumps(tree).encode()


PAST: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "an index that names files elsewhere": (
        "Hugging Face index",
        lambda data: data.replace(b"part.safetensors", b"../teacher.safetensors"),
    ),
    "an index of numbers": ("Hugging Face index", lambda _data: b'{"weight_map": {"a": 3}}'),
    "an index that is a list": ("Hugging Face index", lambda _data: b'{"weight_map": []}'),
    "a deep config.json": ("Hugging Face config.json", lambda _data: b'{"a": ' * 10**5),
    "a deep line of metrics": ("metrics.jsonl", lambda _data: b"[" * 10**5 + b"\n"),
    "a deep list in TOML": ("config.toml", lambda _data: b"a = " + b"[" * 10**5),
    "a deep table in TOML": ("config.toml", lambda _data: b"a = " + b"{a = " * 10**4),
    "a key of 20,000 parts": ("config.toml", lambda _data: b"a." * 20_000 + b"a = 1"),
    "a number of 5,000 digits in TOML": ("config.toml", lambda _data: b"a = " + b"9" * 5000),
    "a number of 5,000 digits in JSON": ("report.json", lambda data: data.replace(b"100", b"9" * 5000)),
    "a number of 30 digits in JSON": ("report.json", lambda data: data.replace(b"100", b"9" * 30)),
    "a path of 5,000 letters": ("manifest.tsv", lambda _data: b"x" * 5000 + b"\none.wav\t4000\n"),
    "a manifest that leads elsewhere": ("manifest.tsv", lambda data: data.replace(b"one.wav", b"../clips/one.wav")),
    "a width of 4,000,000": ("model.json", _edited(encoder_ff_interm_features=4 * 10**6)),
    "10,000,000 layers": ("model.json", _edited(encoder_num_layers=10**7)),
    "100,000,000 buckets": ("model.json", _edited(encoder_num_buckets=10**8, encoder_max_distance=10**9)),
    "a million indices a unit": ("model.json", _wide),
    "a stride of 500,000": ("model.json", _edited(extractor_conv_layer_config=[[8, 10, 5], [8, 3, 500_000]])),
    "a stride of 0": ("Hugging Face config.json", lambda data: data.replace(b"    5,\n    2", b"    0,\n    2")),
    "an archive that inflates": (
        "pickle",
        lambda _data: _archive(b"\x80\x02" + b"N0" * 10**6 + b"N.", zipfile.ZIP_DEFLATED),
    ),
    "tuples 200,000 deep": ("pickle", lambda _data: _archive(b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")),
    "the same in a checkpoint": ("checkpoint", lambda _data: _archive(b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")),
    "a text of 2^60 bytes": ("pickle", lambda _data: b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x."),
    "a set with attributes": ("pickle", lambda _data: pickle.dumps({"state_dict": {1, 2}, "config": 3})),
}
"""What once was a fault, by name: its kind, and the change."""


def outcome(kind: Kind, folder: Path, expected: object) -> tuple[str, str]:
    """How reading ends in a child process, and what it said."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        _read_as_child(kind, folder, expected, tell)
    os.close(tell)
    ready, _, _ = select.select([told], [], [], SECONDS)
    said = b""
    while ready and (piece := os.read(told, 2**16)):
        said += piece
    os.close(told)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not ready:
        return "hang", f"{SECONDS} s"
    if not said:
        return "crash", f"signal {os.WTERMSIG(status)}"
    name, _, text = said.decode(errors="replace").partition("\n")
    return name, text


def _read_as_child(kind: Kind, folder: Path, expected: object, tell: int) -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")
        # A crash is counted; its trace would only stand between the lines of the parent.
        faulthandler.disable()
        answer = ("same" if repr(kind.read(folder)) == expected else "other", "")
    except L0PruneError as error:
        text = str(error)
        is_line = len(text) < 5000 and "\n" not in text
        answer = ("refused", text) if is_line else ("traceback", f"no single line: {text[:99]}")
    except MemoryError as error:
        answer = ("memory", _place(error))
    except BaseException as error:
        answer = ("traceback", _place(error))
    os.write(tell, "\n".join(answer).encode(errors="replace")[: 2**15])
    os._exit(0)


def _place(error: BaseException) -> str:
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"


class Fuzzer:
    """Samples, and what came of the changed ones.

    Args:
        folder: Where samples are made.
        seed: Of all changes.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
        self.faults: list[dict[str, str]] = []
        make_samples(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.expected = {name: repr(kind.read(folder)) for name, kind in KINDS.items()}

    def try_one(self, name: str, change: Callable[[bytes], bytes], label: str) -> str:
        """Change a file, read it, put it back; how that ended."""
        kind = KINDS[name]
        path = self.folder / kind.file
        whole = path.read_bytes()
        path.write_bytes(content := change(whole))
        try:
            ended, said = outcome(kind, self.folder, self.expected[name])
        finally:
            path.write_bytes(whole)
        self.counts[name][ended] += 1
        if ended in FAULTS:
            kept = hashlib.sha256(content).hexdigest()[:16]
            self.faults.append({"kind": name, "input": label, "outcome": ended, "said": said, "sha256": kept})
        return ended

    def replay(self) -> None:
        """Read what once was a fault."""
        for label, (name, change) in PAST.items():
            self.try_one(name, change, label)

    def run(self, seconds: float) -> None:
        """Change files of all kinds in turns."""
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            name = [*KINDS][number % len(KINDS)]
            self.try_one(name, lambda data, kind=KINDS[name]: changed(kind, data, self.chance), f"random {number}")
            number += 1

    def to_json(self) -> dict[str, Any]:
        """The counts by kind, and each fault."""
        return {"counts": {name: dict(counts) for name, counts in self.counts.items()}, "faults": self.faults}


def table(results: dict[str, Any]) -> str:
    """The counts as Markdown."""
    lines = [f"| kind | {' | '.join(OUTCOMES)} |", f"|---|{'---|' * len(OUTCOMES)}"]
    for name, counts in results["counts"].items():
        lines.append(f"| {name} | {' | '.join(str(counts.get(one, 0)) for one in OUTCOMES)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Replay what once was a fault, change files for some minutes, print and write the counts."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=RESULTS / "fuzz.json")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        fuzzer = Fuzzer(folder, options.seed)
        fuzzer.replay()
        fuzzer.run(60 * options.minutes)
    finally:
        shutil.rmtree(folder)
    results = {"minutes": options.minutes, "seed": options.seed, **fuzzer.to_json()}
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = table(results)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, *(f"{fault}\n" for fault in fuzzer.faults), sep="")


if __name__ == "__main__":
    main()
