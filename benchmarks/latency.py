"""How fast students of HuBERT Base are, beside it and beside published architectures of the same size. Random weights.

    python benchmarks/latency.py                 # about 15 minutes on two cores

Students lose the same share of parameters in three ways. A unit stays by a random importance, which is set against
what the unit costs: its parameters (so that all layers shrink alike), its multiply-accumulates, or its measured time.
That is what the controller does with learned importances. Students pruned for time keep to the multiple of channels
that pays on the device. Baselines are built from their papers' numbers: DistilHuBERT (arXiv 2110.01900), two layers;
FitHuBERT (arXiv 2207.00555), twelve thin ones. DPHuBERT (arXiv 2305.17651) shows its widths as bars without numbers:
here they are a reconstruction that has what the paper says of them (the first and last convolution lose most, three
high attention blocks are gone, feed-forward blocks 4, 8 and 12 keep most) and the published total.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch
from l0bench.hubert_base import BASE, SECONDS, make_student, unit_costs
from l0prune_speech.deploy import for_inference
from l0prune_speech.encoder import SpeechEncoder, build_encoder, encoder_groups
from l0prune_speech.formats import from_encoder, to_onnx

from l0prune import Contender, Load, mac_size, measure, parameter_size
from l0prune.discovery import trace
from l0prune.size.latency import measure_latency

ROOT = Path(__file__).parents[1]
PUBLISHED = {
    "DistilHuBERT (2 layers)": {"encoder_num_layers": 2},
    "FitHuBERT (12 thin layers)": {"encoder_embed_dim": 480, "encoder_ff_interm_features": 480},
    "DPHuBERT (reconstructed)": {
        "extractor_conv_layer_config": [
            (channels, *shape[1:])
            for channels, shape in zip(
                (200, 400, 400, 400, 400, 400, 200), BASE["extractor_conv_layer_config"], strict=True
            )
        ],
        "encoder_remaining_heads": [list(range(heads)) for heads in (3, 4, 4, 4, 4, 4, 4, 3, 0, 2, 0, 0)],
        "encoder_ff_interm_features": [338, 338, 338, 1200, 338, 338, 338, 1200, 338, 338, 338, 1192],
    },
}


def make_contender(encoder: SpeechEncoder, workspace: Path, name: str) -> Contender:
    """An encoder in the form in which it runs, and its ONNX form."""
    checkpoint = from_encoder(encoder)
    path = workspace / f"{name}.onnx"

    def onnx() -> Path:
        if not path.exists():
            to_onnx(checkpoint, path)
        return path

    return Contender(module=for_inference(encoder), counted=encoder, onnx=onnx)


def main() -> None:
    """Build the models, measure them, print a table and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latency.json")
    arguments.add_argument("--seconds", type=float, default=60.0, help="of measuring each set of variants")
    options = arguments.parse_args()
    torch.manual_seed(0)
    dense = build_encoder(BASE).eval()
    waveforms = torch.randn(1, SECONDS * 16_000)
    groups = encoder_groups(dense)
    found = trace(dense, lambda model: model(waveforms), training=False)
    parameters = parameter_size(dense, groups)
    latency = measure_latency(dense, groups, lambda model: model(waveforms), found, deploy=for_inference)
    sizes = {"parameters": parameters, "MACs": mac_size(dense, groups, found), "latency": latency.size}
    costs = {name: unit_costs(size, groups) for name, size in sizes.items()}
    encoders = {"HuBERT Base": dense}
    for sparsity in (0.5, 0.75, 0.9):
        for name, cost in costs.items():
            encoders[f"{sparsity:.0%} for {name}"] = make_student(
                dense, groups, parameters, cost, sparsity, latency.round_to if name == "latency" else 1
            )
    encoders |= {name: build_encoder({**BASE, **changes}).eval() for name, changes in PUBLISHED.items()}
    load = Load(
        name=f"{SECONDS} s",
        inputs=(waveforms,),
        feeds={"waveforms": waveforms, "lengths": torch.tensor([waveforms.shape[1]])},
        seconds=SECONDS,
    )
    with tempfile.TemporaryDirectory() as workspace:
        contenders = {
            name: make_contender(encoder, Path(workspace), f"model{number}")
            for number, (name, encoder) in enumerate(encoders.items())
        }
        eager = measure(contenders, [load], seconds=options.seconds)
        few = {name: contenders[name] for name in ("HuBERT Base", "75% for parameters", "75% for latency")}
        variants = measure(
            few,
            [load],
            dtypes=("float32", "bfloat16", "int8"),
            backends=("eager", "onnxruntime"),
            seconds=options.seconds,
        )
    dense_macs = eager.models["HuBERT Base"]["macs"]
    print(f"{'model':28} {'parameters':>12} {'MAC ratio':>9} {'ms':>8} {'times faster':>22}")
    for row in [*eager.rows, *variants.rows]:
        facts, ratio = eager.models[row.model], row.speedup
        assert ratio is not None
        name = row.model if (row.dtype, row.backend) == ("float32", "eager") else f"  {row.dtype}, {row.backend}"
        interval = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        size = facts["parameters"]
        print(f"{name:28} {size:12,} {dense_macs / facts['macs']:9.2f} {row.latency_ms:8.1f} {interval:>22}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    results = {
        "commit": commit.stdout.strip(),
        "latency_model_error": latency.error,
        "round_to": latency.round_to,
        "eager": eager.to_json(),
        "variants": variants.to_json(),
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
