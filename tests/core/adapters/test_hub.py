"""Runs and exports go to a hub in one commit, with a card that says what their files say."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
import yaml
from hub_server import TOKEN, Hub, running_hub
from torch import nn

import l0prune
from l0prune.adapters.hub import card_of, push_to_hub
from l0prune.plugin import CardFacts
from l0prune.support import check_sums, write_sums

FACTS = CardFacts(
    license="mit", language=("en", "no"), base_model="me/dense", datasets=("some/set",), pipeline_tag="other"
)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build()
    pruner = l0prune.wrap(model, torch.randn(4, 6), target_sparsity=0.5, total_steps=10)
    for _ in range(10):
        model(torch.randn(4, 6)).square().mean().backward()
        pruner.step()
    pruner.finalize()
    folder = pruner.save_run(tmp_path_factory.mktemp("runs") / "net")
    evaluation = {
        "tasks": {"asr": {"metric": "word error rate", "higher_is_better": False, "data": "held-out"}},
        "scores": [
            {"model": str(folder), "task": "asr", "mean": 0.125},
            {"model": "dense", "task": "asr", "mean": 0.1},
        ],
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    row = {"model": "net", "load": "1 s", "dtype": "float32", "backend": "eager", "latency_ms": 2.5}
    (folder / "bench.json").write_text(json.dumps({"models": {"net": {"parameters": 3}}, "rows": [row]}))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step.pt").write_text("not for others")
    l0prune.export(folder, to="safetensors", build=build)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # The library may try again for minutes; a test need not wait.
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with running_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield hub


def head_of(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_a_run_arrives_whole(run: Path, hub: Hub, tmp_path: Path) -> None:
    pushed = push_to_hub(run, "me/net", facts=FACTS, token=TOKEN, private=True, message="first")
    assert hub.commits == ["first"]
    made = hub.repos["me/net"]
    assert made.get("private") or made.get("visibility") == "private"  # In older versions of the library, and in newer.
    assert set(pushed.files) == set(hub.files)
    assert not [name for name in hub.files if name.startswith(("checkpoints", "exports", "run.lock"))]
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    assert l0prune.verify(tmp_path, build=build).broken is None
    card = hub.files["README.md"].decode()
    head, report = head_of(card), json.loads((run / "report.json").read_text())
    assert head["license"] == "mit"
    assert head["language"] == ["en", "no"]  # Not the boolean that a bare `no` is in YAML.
    assert (head["base_model"], head["base_model_relation"]) == ("me/dense", "finetune")
    assert (head["datasets"], head["library_name"], head["pipeline_tag"]) == (["some/set"], "l0prune", "other")
    assert head["metrics"] == ["wer"]
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "wer", "name": "word error rate", "value": 0.125}]
    assert result["dataset"] == {"name": "held-out", "type": "held-out"}
    for words in (
        f"{report['params_after']:,}",
        "2.50 ms",
        "(architecture.png)",
        "l0prune.load(folder, build)",
        "Seed 0",
    ):
        assert words in card, card
    assert "lacks" not in card
    push_to_hub(run, "me/net", token=TOKEN)
    assert len(hub.commits) == 2


def test_an_export_knows_its_run(run: Path, hub: Hub) -> None:
    export = run / "exports" / "safetensors"
    (export / "README.md").write_text("---\nlicense: x\n---\n# Theirs\n\nOpen it so.\n")
    write_sums(export)
    pushed = push_to_hub(export, "me/net", token=TOKEN)
    card = hub.files["README.md"].decode()
    assert "Open it so." in card
    assert "# Theirs" not in card
    assert card.count("---\n") == 2
    assert json.loads((run / "report.json").read_text())["teacher"] in card
    assert any("license" in note for note in pushed.notes)
    received = run.parent / "received"
    received.mkdir()
    for name, content in hub.files.items():
        (received / name).write_bytes(content)
    # The card took the place of another file, and the digests say so.
    assert check_sums(received) == check_sums(export)


def test_a_card_is_made_without_a_hub(run: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"some program")
    assert head_of(card_of(tmp_path / "net.onnx", "me/net"))["library_name"] == "onnx"
    assert "## Sizes" not in card_of(tmp_path / "net.onnx", "me/net")
    assert "## Sizes" in card_of(tmp_path / "net.onnx", "me/net", run=run)


def test_without_a_token_nothing_is_sent(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(l0prune.ConfigError, match="no token for the hub: me/net; run `hf auth login`"):
        push_to_hub(run, "me/net")
    with pytest.raises(l0prune.L0PruneError, match="the hub refuses: me/net"):
        push_to_hub(run, "me/net", token="hf_wrong")
    assert not hub.commits
    with pytest.raises(l0prune.ConfigError, match="no name of a repository"):
        push_to_hub(run, "me/net/more", token=TOKEN)


def test_a_hub_that_is_away_is_said_in_one_line(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(l0prune.L0PruneError, match="cannot be reached: me/net") as caught:
        push_to_hub(run, "me/net", token=TOKEN)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(l0prune.ConfigError, match="pip install huggingface_hub"):
        push_to_hub(run, "me/net", token=TOKEN)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(l0prune.RunError, match="no such run or export"):
        card_of(tmp_path / "nothing", "me/net")
    with pytest.raises(l0prune.RunError, match="nothing to push"):
        card_of(tmp_path, "me/net")
    (tmp_path / "config.toml").write_text('plugin = "speech"\n')
    with pytest.raises(l0prune.RunError, match="no model yet"):
        card_of(tmp_path, "me/net")


def test_a_card_of_a_cut_has_the_command_that_cuts(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cut"
    copy.mkdir()
    for name in ("model.json", "model.safetensors", "config.toml", "report.json"):
        (copy / name).write_bytes((run / name).read_bytes())
    report = json.loads((copy / "report.json").read_text())
    cut = {"of": "runs/elastic", "target": {"params": "params=40%"}, "polish": 100, "seconds": 1.0}
    (copy / "report.json").write_text(json.dumps(report | {"cut": cut}))
    card = card_of(copy, "me/net")
    assert "l0prune cut ELASTIC_RUN --target params=40% --polish 100\n" in card
    assert "l0prune compress" not in card
