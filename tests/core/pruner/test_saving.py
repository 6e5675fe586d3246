"""What one's own loop has made, as a run folder: its files agree, and it is there as a whole or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune.measuring import macs, parameters
from l0prune.support import read_json, read_toml

STEPS = 10


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x))) * scale


def inputs() -> tuple[Tensor, Tensor]:
    return torch.linspace(-1, 1, 20).reshape(5, 4), torch.tensor(2.0)


def trained(example: Any = None, **settings: Any) -> l0prune.L0Pruner:
    torch.manual_seed(0)
    settings = {"total_steps": STEPS, **({} if "target" in settings else {"target_sparsity": 0.5}), **settings}
    pruner = l0prune.wrap(Small(), example or inputs(), **settings)
    optimizer = torch.optim.SGD(pruner.parameter_groups(lr=0.1))
    for _ in range(STEPS):
        pruner.model(*inputs()).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    return pruner


def rows() -> list[dict[str, Any]]:
    return [{"step": n, "loss": 1 / n, "parts": {"task": 1 / n}, "sparsity": n / 10} for n in range(1, STEPS + 1)]


def test_the_files_say_what_the_pruner_says(tmp_path: Path) -> None:
    pruner = trained()
    with pytest.raises(l0prune.ConfigError, match=r"evaluate gives no number \(got str, expected a number"):
        pruner.finalize(evaluate=lambda model: "low")  # pyright: ignore[reportArgumentType]
    smaller = pruner.finalize(evaluate=lambda model: float(model(*inputs()).square().mean()))
    folder = pruner.save_run(tmp_path / "run", metrics=rows(), final_loss=0.25, seed=3)
    assert folder == tmp_path / "run"
    report, found = read_json(folder / "report.json"), pruner.report
    for key in ("params_before", "params_after", "macs_before", "macs_after", "sparsity", "target_sparsity"):
        assert report[key] == getattr(found, key), key
    assert (report["teacher"], report["seed"], report["distill_loss_final"]) == ("Small", 3, 0.25)
    assert report["distill_loss_after_removal"] == found.loss_after_cut
    assert read_toml(folder / "config.toml")["controller"]["kind"] == "projected"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["position"], line["loss"]) for line in lines] == [(row["step"], row["loss"]) for row in rows()]
    again = l0prune.load(folder, Small)
    with torch.no_grad():
        assert torch.equal(again(*inputs()), smaller(*inputs()))
    checks = l0prune.verify(folder, build=Small).checks
    assert all(check.holds for check in checks), checks
    page = Path(l0prune.write_report([folder]).page).read_text()
    assert "makes it again" in page
    assert "Training loss" in page


@pytest.mark.usefixtures("rendered")
def test_several_targets_are_told_and_drawn(tmp_path: Path) -> None:
    pruner = trained(target={"disk": 0.6, "params": 0.9})
    pruner.finalize()
    folder = pruner.save_run(tmp_path / "run", final_loss=0.25)
    report = read_json(folder / "report.json")
    assert report["targets"] == pruner.report.targets
    assert report["selection_gap"] == pruner.report.selection_gap
    (point,) = l0prune.write_pareto([folder], tmp_path / "drawn", x="disk").points
    # A file is as large as was said, or smaller by what its header says in fewer letters.
    assert 0 <= 1e6 * point.x - (folder / "model.safetensors").stat().st_size <= 40


def test_a_network_that_is_trained_on_takes_the_place_of_the_cut_one(tmp_path: Path) -> None:
    pruner = trained()
    smaller = pruner.finalize()
    with torch.no_grad():
        smaller.up.weight.mul_(2)
    pruner.save_run(tmp_path / "run", smaller)
    assert torch.equal(l0prune.load(tmp_path / "run", Small).up.weight, smaller.up.weight)
    assert l0prune.verify(tmp_path / "run", build=Small).broken is None


def test_arguments_by_name_are_kept_in_the_order_of_the_forward_pass(tmp_path: Path) -> None:
    x, scale = inputs()
    pruner = trained({"scale": scale, "x": x})
    pruner.finalize()
    outputs = next(
        c for c in l0prune.verify(pruner.save_run(tmp_path / "run"), build=Small).checks if c.name == "outputs"
    )
    assert outputs.holds
    counted = read_json(tmp_path / "run" / "model.json")["counted_on"]["inputs"]
    assert [row["shape"] for row in counted] == [[5, 4], []]


def test_what_cannot_be_counted_is_left_out(tmp_path: Path) -> None:
    pruner = trained(forward_fn=lambda model, given: model(*given))
    smaller = pruner.finalize()
    object.__setattr__(pruner.report, "macs_before", None)
    folder = pruner.save_run(tmp_path / "run")
    report = read_json(folder / "report.json")
    assert (report["macs_after"], report["params_after"]) == (None, parameters(smaller))
    names = [measure.name for measure in l0prune.write_report([folder]).runs[0].measures]
    assert "parameters after" in names
    assert "MACs after" not in names
    assert macs(lambda: smaller(*inputs())) > 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"metrics": [{"step": 1}]}, "a row needs a step and a loss: metrics, row 1"),
        ({"metrics": [{"step": 1, "loss": 2.0, "lossy": 1}]}, "nothing that a row holds: metrics, row 1, lossy"),
        ({"metrics": [{"step": 1, "loss": 2.0, "parts": {"a": "b"}}]}, "not a number: metrics, row 1, a"),
        ({"plugin": "speech"}, "plugin and architecture go together"),
        ({"plugin": "spech", "architecture": {}}, "no such plugin: spech"),
        ({"module": nn.Linear(2, 2)}, "not the network that the plan leaves"),
    ],
)
def test_a_wrong_argument_leaves_nothing(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    pruner = trained()
    pruner.finalize()
    with pytest.raises(l0prune.L0PruneError, match=words):
        pruner.save_run(tmp_path / "run", **more)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_run_is_saved_once_and_after_the_cut(tmp_path: Path) -> None:
    pruner = trained()
    with pytest.raises(l0prune.TrainingError, match="call finalize"):
        pruner.save_run(tmp_path / "run")
    pruner.finalize()
    pruner.save_run(tmp_path / "run")
    with pytest.raises(l0prune.RunError):
        pruner.save_run(tmp_path / "run")
    assert l0prune.verify(tmp_path / "run", build=Small).broken is None
