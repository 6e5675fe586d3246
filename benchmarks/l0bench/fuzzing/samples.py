"""A small file of every kind that l0prune reads, as small as can be: reading one takes milliseconds."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from l0prune_speech.encoder import build_encoder, encoder_groups
from l0prune_speech.formats import from_encoder, to_dphubert, to_huggingface
from safetensors.torch import save_file

import l0prune
from l0prune.measuring import macs, parameters
from l0prune.removal import RemovalPlan, apply_plan, make_plan
from l0prune.storage import save_checkpoint
from l0prune.support import model_shapes, write_toml

TEACHER: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [[4, 10, 5], [4, 3, 2]],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 8,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 4,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 1,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 8,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.0,
    "aux_num_out": None,
}
SOUNDS = ("wav", "flac", "ogg", "mp3")
_CLIP_SAMPLES = 1600
_COUNTED_SAMPLES, _SCALE = 200, 80.0
"""Of the input on which multiply-accumulates are counted; what they are multiplied by for a second."""


def make_samples(folder: Path) -> None:
    """Make all samples in an empty folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder(TEACHER).eval()
    _make_teachers(folder, encoder)
    dense = parameters(encoder), _macs(encoder)
    _make_run(folder / "run", encoder)
    _make_whole(folder, encoder, dense)
    _make_reported(folder / "reported")
    state = {"position": 3, "stage": "joint", "tensors": {"a": torch.ones(3)}, "results": {"losses": [0.5, 0.25]}}
    save_checkpoint(folder / "checkpoints", 3, state)
    _make_clips(folder)


def _make_teachers(folder: Path, encoder: Any) -> None:
    metadata = {"format": "l0prune-speech-teacher", "config": json.dumps(TEACHER), "normalize_waveform": "false"}
    tensors = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(tensors, folder / "teacher.safetensors", metadata=metadata)
    to_dphubert(from_encoder(encoder), folder / "student.pth")
    for name in ("huggingface", "in-parts"):
        (folder / name).mkdir()
        to_huggingface(from_encoder(encoder), folder / name, "")
    parts = folder / "in-parts"
    (parts / "model.safetensors").rename(parts / "part.safetensors")
    _write(parts / "model.safetensors.index.json", {"weight_map": dict.fromkeys(tensors, "part.safetensors")})


def _make_run(folder: Path, encoder: Any) -> None:
    groups = encoder_groups(encoder, ("conv", "head", "ffn"))
    kept = {group.name: tuple(range(0, group.units, 2)) for group in groups}
    plan = make_plan(groups, kept, model_shapes(encoder))
    student = apply_plan(encoder, plan)
    provenance = {"teacher": "embedded", "versions": {"torch": "2"}}
    l0prune.save(
        student, plan, folder, example_inputs=torch.ones(1, _COUNTED_SAMPLES), plugin="speech", architecture=TEACHER,
        provenance=provenance,
        counted_on={"inputs": [{"shape": [1, _COUNTED_SAMPLES], "dtype": "float32"}], "scale": _SCALE},
    )  # fmt: skip


def _make_whole(folder: Path, student: torch.nn.Module, dense: tuple[int, int]) -> None:
    """The run with a report that is true, which `verify` computes anew."""
    whole = Path(shutil.copytree(folder / "run", folder / "whole"))
    (whole / "config.toml").write_text(write_toml({"plugin": "speech", "seed": 0}))
    plan = RemovalPlan.from_json(json.loads((whole / "model.json").read_text())["plan"])
    kept = {group.name: {"units": group.units, "kept": plan.kept_counts[group.name]} for group in plan.groups}
    sparsity = 1 - parameters(student) / dense[0]
    report = {
        **{"plugin": "speech", "seed": 0, "teacher": "embedded", "versions": {"torch": "2"}, "macs_per": "second"},
        **{"params_before": dense[0], "params_after": parameters(student), "metric": "params", "sparsity": sparsity},
        **{"macs_before": dense[1], "macs_after": _macs(student), "target_sparsity": sparsity, "kept_units": kept},
    }
    _write(whole / "report.json", report)


def _macs(encoder: torch.nn.Module) -> int:
    return round(macs(lambda: encoder(torch.ones(1, _COUNTED_SAMPLES))) * _SCALE)


def _make_reported(folder: Path) -> None:
    """A run without its network, which takes most of the time of a report."""
    folder.mkdir()
    settings = {"plugin": "speech", "seed": 0, "joint": {"steps": 2}, "speech": {"data": ["a"]}}
    (folder / "config.toml").write_text(write_toml(settings))
    report: dict[str, Any] = {"teacher": "embedded", "macs_per": "second", "versions": {"torch": "2"}, "seed": 0}
    report |= dict.fromkeys(("params_before", "params_after", "macs_before", "macs_after"), 100)
    _write(folder / "report.json", {**report, "sparsity": 0.5, "target_sparsity": 0.5, "losses_final": {"l1": 0.1}})
    row = {"position": 1, "stage": "joint", "step": 1, "steps": 2, "loss": 0.5, "parts": {"l1": 0.5}, "sparsity": 0.1}
    rows = [json.dumps({**row, "position": number, "step": number}) + "\n" for number in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(rows))
    scores = [{"model": "run", "task": "phone", "mean": 0.5, "deviation": None}]
    tasks = {"phone": {"metric": "accuracy"}}
    _write(folder / "evaluation.json", {"scores": scores, "tasks": tasks, "layers": []})
    bench = {"model": "run", "load": "1 s", "dtype": "float32", "backend": "torch", "latency_ms": 1.0}
    _write(folder / "bench.json", {"models": {"run": {}}, "rows": [bench]})


def _make_clips(folder: Path) -> None:
    clips, sounds = folder / "clips", folder / "sounds"
    clips.mkdir()
    sounds.mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(_CLIP_SAMPLES)
    for kind in SOUNDS:
        soundfile.write(sounds / f"clip.{kind}", noise, 16_000)
    for kind in ("wav", "flac"):
        shutil.copy(sounds / f"clip.{kind}", clips)
    (folder / "clips.tsv").write_text(f"clips\nclip.wav\t{_CLIP_SAMPLES}\nclip.flac\t{_CLIP_SAMPLES}\n")
    rows = [
        {"file": f"clip.{kind}", "split": split, "speaker": split, "phonemes": "a b"}
        for kind, split in (("wav", "train"), ("flac", "unseen"))
    ]
    _write(clips / "manifest.json", {"format": "l0prune-labelled-speech", "clips": rows})


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
