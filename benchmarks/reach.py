"""How much of well-known networks can go: the share of parameters, and of units of each kind.

    python benchmarks/reach.py                       # the networks of ISSUED, one row each
    python benchmarks/reach.py "BEiT (timm)" Bloom   # others of the zoo, by name
    python benchmarks/reach.py --all --form graph    # the whole zoo, in its graph form

The networks are those of `pytest -m zoo`, with random weights. Each row is what `l0prune.inspect` proves. A kind of
which no unit can go is named, with the reason. Units of the model's own output are left out.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import l0prune

sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))

KINDS = ("heads", "features", "channels", "expert", "trunk")
ISSUED = (
    "BEiT (timm)", "DINOv3 (timm)", "Swin", "Swin (timm)", "SwinV2", "PVTv2", "Twins-SVT", "DaViT", "EVA-02", "CaiT",
    "SegFormer", "XCiT", "Moonshine", "Emformer", "Gemma", "Gemma 3", "ConvNeXt V2",
    "SK-ResNet", "HuBERT (transformers)", "WavLM (transformers)", "Mixtral", "Qwen3-MoE", "Qwen3-Next", "DeepSeek-V3",
    "Phi-3", "Bloom", "MPT", "Falcon", "Mamba", "Mamba-2", "FalconMamba", "RWKV", "ResNetV2 (group norm)",
    "Low-rank updates, merged", "Low-rank updates, beside",
    "Low-rank updates, weight-normed", "Llama (one key/value head)", "T5", "LeViT",
    "LeViT (transformers)", "EfficientViT", "EfficientViT-M", "GPT-Neo", "MNASNet", "Experts in a list",
)  # fmt: skip
"""Networks of which some kind of unit could not go once, and those that are their like."""


def main() -> None:
    """Print a table in Markdown."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", metavar="NAME")
    arguments.add_argument("--all", action="store_true", help="every network of the zoo")
    arguments.add_argument("--form", choices=("module", "graph"), default="module")
    options = arguments.parse_args()
    from zoo_networks import ZOO

    torch.set_num_threads(1)
    print(f"| network | parameters | {' | '.join(KINDS)} | wholly refused, and why |")
    print("|---" * (len(KINDS) + 3) + "|")
    for name in ZOO if options.all else options.names or [name for name in ISSUED if name in ZOO]:
        print(f"| {' | '.join(row(name, ZOO[name], options.form))} |", flush=True)


def row(name: str, network: Any, form: Any) -> Iterator[str]:
    """The cells of one network."""
    from zoo_networks import built

    model, observe, _ = built(network)
    found = l0prune.inspect(
        model,
        network.inputs,
        forward_fn=lambda module, _: observe(module),
        time_limit=600.0,
        form=form,
        depth=network.depth,
    )
    size = found.parameter_model
    shares = {share.kind: share for share in found.shares}
    yield from (name, f"{1 - size.floor / size.total:.1%}")
    for kind in KINDS:
        yield f"{shares[kind].reached:,} of {shares[kind].units:,}" if kind in shares else ""
    yield "; ".join(f"{share.kind}: {reason_of(found, share.kind)}" for share in found.shares if not share.reached)


def reason_of(found: l0prune.pruner.Inspection, kind: str) -> str:
    """The first reason against units of a kind."""
    word = {"heads": "head", "features": "unit", "channels": "conv", "trunk": "embedding"}.get(kind, kind)
    reasons = [row.reason for row in found.rows if not row.proved and row.kind == word]
    reasons += [alone.reason for alone in found.left_alone if not alone.interface and alone.kind == word]
    return (reasons or ["its group is refused"])[0].partition(" in ")[0]


if __name__ == "__main__":
    main()
