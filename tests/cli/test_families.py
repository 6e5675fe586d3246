"""`l0prune compress` from checkpoints of other stacks, and of a network that was pruned before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats.teachers import load_teacher

import l0prune

LAYOUT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


@pytest.mark.parametrize(
    ("family", "layout"), [("WavLM", {}), ("WavLM", LARGE), ("Wav2Vec2", LARGE)], ids=["wavlm", "wavlm-large", "w2v2"]
)
def test_a_hugging_face_directory_from_end_to_end(bench, tmp_path: Path, family: str, layout: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**LAYOUT, **layout)
    getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path / "hf")
    run = tmp_path / "run"
    done = bench.compress("--teacher", tmp_path / "hf", "--out", run, "--target-sparsity", "0.6", "--json").succeeded()
    report = json.loads(done.out)
    assert report["max_relative_difference"] <= 1e-5
    assert report["distill_loss_after_removal"] == pytest.approx(report["distill_loss_before_removal"], rel=1e-5)
    assert 0.6 <= report["sparsity"] <= 0.61
    student = l0prune.load(run)
    assert isinstance(student, SpeechEncoder)
    assert student.normalize_waveform is bool(layout)
    assert sum(parameter.numel() for parameter in student.parameters()) == report["params_after"]
    assert student.extract_features(torch.randn(2, 8_000), torch.tensor([8_000, 6_000]))[0][0].shape == (2, 24, 32)


def test_a_pruned_network_is_pruned_again_in_its_first_indices(
    bench, tmp_path: Path, toml: Callable[..., Path], l0prune_call: Callable[..., Any]
) -> None:
    torch.manual_seed(0)
    transformers.WavLMModel(transformers.WavLMConfig(**LAYOUT)).save_pretrained(tmp_path / "hf")
    quick = toml(("steps = 10", "steps = 5"), ("steps = 6", "steps = 1"))
    first, second = tmp_path / "first", tmp_path / "second"
    bench.compress("--teacher", tmp_path / "hf", "--target-sparsity", "0.4", "--out", first, config=quick).succeeded()
    again = ("--target-sparsity", "0.4", "--out", second)
    bench.compress("--teacher", first, *again, config=quick).succeeded()
    kept = [json.loads((run / "model.json").read_text())["plan"]["kept"] for run in (first, second)]
    shapes = [json.loads((run / "model.json").read_text())["plan"]["shapes"] for run in (first, second)]
    assert shapes[0] == shapes[1]
    assert kept[0].keys() == kept[1].keys()
    assert all(set(kept[1][name]) <= set(units) for name, units in kept[0].items())
    assert sum(map(len, kept[1].values())) < sum(map(len, kept[0].values()))
    reports = [json.loads((run / "report.json").read_text()) for run in (first, second)]
    assert reports[1]["params_before"] == reports[0]["params_after"]
    student = load_teacher(str(second)).encoder
    assert sum(parameter.numel() for parameter in student.parameters()) == reports[1]["params_after"]
    # The heads that other stacks see are those of the very first network.
    l0prune_call("export", second, "--to", "dphubert", "--out", tmp_path / "student.pth").succeeded()
    config = torch.load(tmp_path / "student.pth", weights_only=True)["config"]
    for layer, (heads, there) in enumerate(
        zip(config["encoder_remaining_heads"], config["encoder_use_attention"], strict=True)
    ):
        name = f"encoder.transformer.layers.{layer}.attention.heads"
        assert heads == kept[1][name] or (layer == 0 and there and not kept[1][name])


@pytest.mark.parametrize("to", ["dphubert", "huggingface"])
def test_a_student_of_another_stack_is_a_teacher(
    bench, finished, tmp_path: Path, toml: Callable[..., Path], l0prune_call: Callable[..., Any], to: str
) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    l0prune_call("export", finished.folder, "--to", to, "--out", teacher).succeeded()
    quick = toml(("steps = 10", "steps = 2"), ("steps = 6", "steps = 1"))
    done = bench.compress("--teacher", teacher, "--target-sparsity", "0.2", "--out", run, "--json", config=quick)
    report = json.loads(done.succeeded().out)
    assert report["params_before"] == finished.report["params_after"]
    student = l0prune.load(run)
    assert sum(parameter.numel() for parameter in student.parameters()) == report["params_after"]


def test_a_resumed_run_of_a_pruned_network_ends_the_same(
    bench, finished, tmp_path: Path, toml: Callable[..., Path]
) -> None:
    quick = toml(("steps = 10", "steps = 4"), ("steps = 6", "steps = 2"))
    again = ("--teacher", finished.folder, "--target-sparsity", "0.3")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    bench.compress(*again, "--out", whole, config=quick).succeeded()
    bench.compress(*again, "--out", cut, config=quick).succeeded()
    # As if it had been stopped right after the cut.
    for name in ("report.json", "model.json", "model.safetensors"):
        (cut / name).unlink()
    bench.compress(*again, "--out", cut, "--resume", config=quick).succeeded()
    for name in ("model.safetensors", "model.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


class TestExport:
    def test_a_line_says_what_was_written(self, finished, tmp_path: Path, l0prune_call: Callable[..., Any]) -> None:
        done = l0prune_call("export", finished.folder, "--to", "huggingface", "--out", tmp_path / "hf").succeeded()
        kept = f"{finished.report['params_after']:,}"
        assert done.out.startswith(f"{tmp_path / 'hf'}: huggingface, {kept} parameters; its outputs differ by ")
        assert done.out.splitlines()[1:] == [
            "  opened again by transformers (a pruned encoder: with the classes in its folder)"
        ]
        assert done.err == ""
        with torch.no_grad():
            waveforms = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 8_000))).float()
            one, other = (load_teacher(str(p)).encoder(waveforms)[0] for p in (finished.folder, tmp_path / "hf"))
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)

    def test_json_is_alone_on_stdout(self, finished, tmp_path: Path, l0prune_call: Callable[..., Any]) -> None:
        done = l0prune_call("export", finished.folder, "--to", "torchscript", "--out", tmp_path / "x.pt", "--json")
        written = json.loads(done.succeeded().out)
        assert written["format"] == "torchscript"
        assert written["path"] == str(tmp_path / "x.pt")
        assert written["max_relative_difference"] <= 1e-5

    def test_the_list_names_every_format(self, l0prune_call: Callable[..., Any]) -> None:
        names = (
            "huggingface huggingface-padded ctranslate2 dphubert diarizen onnx torchscript torch.export s3prl "
            "onnx-streaming torch.export-streaming onnx-int8 onnx-int8-dynamic torch.export-int8".split()
        )
        shown = l0prune_call("export", "--list").succeeded().out
        assert all(name in shown for name in names)
        rows = json.loads(l0prune_call("export", "--list", "--json").succeeded().out)
        assert sorted(row["name"] for row in rows) == sorted(names)
        assert all(row["holds"] for row in rows)

    def test_wrong_requests_are_refused(self, finished, tmp_path: Path, l0prune_call: Callable[..., Any]) -> None:
        l0prune_call("export", finished.folder, "--to", "dphubret").refused("no such format", "'dphubert'")
        l0prune_call("export", finished.folder).refused("--to FORMAT", "export --list")
        l0prune_call("export").refused("--to FORMAT", "export --list")
        l0prune_call("export", tmp_path, "--to", "onnx", "--out", tmp_path / "x").refused(
            "no checkpoint of a known format in the folder"
        )
        l0prune_call("export", "embeded", "--to", "onnx", "--out", tmp_path / "x").refused("'embedded'")
        assert not (tmp_path / "x").exists()
