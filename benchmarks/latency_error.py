"""How well the latency model predicts whole networks: 50 random plans that it was not fitted to, measured.

    python benchmarks/latency_error.py embedded  # a minute or two on two cores
    python benchmarks/latency_error.py HUBERT_BASE_SIZE  # ten minutes

The yardstick in the same run is the number of multiply-accumulates, scaled to the same plans' times as well as it can.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from l0bench.hubert_base import BASE, SECONDS
from l0prune_speech.deploy import for_inference
from l0prune_speech.encoder import build_encoder, encoder_groups
from l0prune_speech.formats import load_teacher

from l0prune import mac_size
from l0prune.discovery import trace
from l0prune.measuring import processor
from l0prune.size.latency import TICKS, Samples, measure_latency
from l0prune.support import versions

ROOT = Path(__file__).parents[1]
PLANS = 50


def main() -> None:
    """Fit, measure other plans, print the errors and add them to the results."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("network", choices=["embedded", "HUBERT_BASE_SIZE"])
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latency-error.json")
    arguments.add_argument("--cache", type=Path, help="a file that keeps the fitted coefficients")
    options = arguments.parse_args()
    torch.manual_seed(0)
    encoder = load_teacher("embedded").encoder if options.network == "embedded" else build_encoder(BASE)
    encoder, waveforms = encoder.eval(), torch.zeros(1, SECONDS * 16_000)
    groups = encoder_groups(encoder)
    found = trace(encoder, lambda model: model(waveforms), training=False)
    latency = measure_latency(
        encoder,
        groups,
        lambda model: model(waveforms),
        found,
        deploy=for_inference,
        cache=[options.cache] if options.cache else [],
    )
    print(f"fitted: error {latency.error:.1%} on plans held out, widths in multiples of {latency.round_to}", flush=True)
    samples = Samples(encoder, groups, lambda model: model(waveforms), for_inference, seed=1)
    samples.add(PLANS, (latency.round_to,))
    plans = [p for p, multiple in enumerate(samples.round_to) if multiple]
    times = np.array([samples.times[p][0] for p in plans])
    predicted = np.array([latency.size.exact(samples.plans[p]) / TICKS for p in plans])
    counted = mac_size(encoder, groups, found)
    products = np.array([counted.exact(samples.plans[p]) for p in plans], dtype=float)
    errors = {
        "latency model": np.abs(predicted / times - 1),
        "multiply-accumulates": np.abs(products / times / np.median(products / times) - 1),
    }
    for name, error in errors.items():
        print(f"{name:22} median error {np.median(error):.1%}, nine in ten below {np.quantile(error, 0.9):.1%}")
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    results[options.network] = {
        "processor": processor(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": versions("torchaudio"),
        "round_to": latency.round_to,
        "plans": len(plans),
        "dense_ms": 1000 * samples.dense_seconds,
        "median_error": {name: float(np.median(error)) for name, error in errors.items()},
        "milliseconds": [[round(1000 * t, 2), round(1000 * p, 2)] for t, p in zip(times, predicted, strict=True)],
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
