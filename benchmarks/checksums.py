"""What checksums cost when a network of HuBERT Base's size is loaded.

    python benchmarks/checksums.py                # about two minutes

The encoder, with one unit of every feed-forward block removed, is saved as a run's network: 378 MB. It is loaded in
turns with its checksums and without (the same file, whose description states none), from the page cache, which leaves
the reading itself the least share. The yardstick is the median without them; shares are of pairs, one after the other.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from l0bench.hubert_base import BASE
from l0bench.provenance import where
from l0prune_speech.encoder import build_encoder, encoder_groups

import l0prune
from l0prune.removal import apply_plan, make_plan
from l0prune.support import file_digest, model_shapes, write_json

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Save, load in pairs, print and write."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=15)
    arguments.add_argument("--out", type=Path, default=RESULTS / "checksums.json")
    options = arguments.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        folders = _saved(Path(folder))
        for place in folders.values():
            _seconds(place)
        pairs = []
        for number in range(options.pairs):
            # Each comes first as often as the other.
            names = [*folders] if number % 2 else [*folders][::-1]
            pairs.append({name: _seconds(folders[name]) for name in names})
            print(pairs[-1], flush=True)
        weights = folders["with"] / "model.safetensors"
        began = time.process_time()
        file_digest(weights)
        alone, size = time.process_time() - began, weights.stat().st_size
    results: dict[str, Any] = {
        "bytes": size,
        "pairs": len(pairs),
        "elapsed": _compared([{name: pair[name][0] for name in folders} for pair in pairs]),
        "processor_time": _compared([{name: pair[name][1] for name in folders} for pair in pairs]),
        "digest_alone_processor_seconds": alone,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        **where(torch.device("cpu")),
    }
    write_json(options.out, results)
    print(json.dumps(results, indent=1))


def _compared(pairs: list[dict[str, float]]) -> dict[str, Any]:
    low, middle, high = np.quantile([pair["with"] / pair["without"] - 1 for pair in pairs], (0.25, 0.5, 0.75))
    medians = {f"seconds_{name}": median(pair[name] for pair in pairs) for name in pairs[0]}
    return {**medians, "share_median": middle, "share_quartiles": [low, high]}


def _saved(folder: Path) -> dict[str, Path]:
    """Two folders of the same network: with checksums and without."""
    torch.manual_seed(0)
    encoder = build_encoder(BASE).eval()
    groups = encoder_groups(encoder, ("ffn",))
    plan = make_plan(groups, {g.name: tuple(range(1, g.units)) for g in groups}, model_shapes(encoder))
    student = apply_plan(encoder, plan)
    folders = {name: folder / name for name in ("with", "without")}
    l0prune.save(student, plan, folders["with"], plugin="speech", architecture=BASE)
    folders["without"].mkdir()
    os.link(folders["with"] / "model.safetensors", folders["without"] / "model.safetensors")
    description = json.loads((folders["with"] / "model.json").read_text())
    del description["sha256"]
    (folders["without"] / "model.json").write_text(json.dumps(description))
    return folders


def _seconds(folder: Path) -> tuple[float, float]:
    """Elapsed, and of the processor, all threads together."""
    began = time.perf_counter(), time.process_time()
    l0prune.load(folder)
    return time.perf_counter() - began[0], time.process_time() - began[1]


if __name__ == "__main__":
    main()
