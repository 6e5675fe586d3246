"""Networks that are cut out of an elastic run: their size, their proof, their folder, and what is refused."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptron_task import SETTINGS, WIDTH, Watch, batches, make_task, network
from torch import nn

import l0prune
from l0prune.storage import Order, read_order, write_order

ELASTIC: dict[str, Any] = {key: value for key, value in SETTINGS.items() if key != "target_sparsity"} | {
    "elastic": {"smallest": 0.3, "largest": 0.9}
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic") / "run"
    l0prune.compress(make_task(), settings=ELASTIC, out=folder)
    return folder


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def test_a_run_tells_its_curve_and_leaves_its_largest_network(run: Path) -> None:
    report, order = report_of(run), read_order(run / "order.json")
    curve = report["elastic"]["curve"]
    assert [row["asked"] for row in curve] == pytest.approx([0.3, 0.45, 0.6, 0.75, 0.9])
    assert all(row["left"] <= row["asked"] for row in curve)
    assert (
        report["params_after"]
        == curve[-1]["parameters"]
        == sum(p.numel() for p in l0prune.load(run, network).parameters())
    )
    assert report["distill_loss_final"] == pytest.approx(curve[-1]["loss"], rel=1e-6)
    assert report["max_relative_difference"] < 1e-5
    assert (order.smallest, order.largest, order.metric) == (0.3, 0.9, "params")
    # Units leave in the order's order.
    scores = np.array(order.scores["hidden"])
    kept = list(l0prune.plan_of(l0prune.load(run, network)).kept["hidden"])
    assert scores[kept].min() >= np.delete(scores, kept).max()


@pytest.mark.parametrize("left", [0.3, 0.5, 0.74, 0.9])
def test_a_cut_is_the_run_at_that_size(left: float, run: Path, tmp_path: Path) -> None:
    report = l0prune.cut(run, {"params": left}, out=tmp_path / "cut", build=network, task=make_task(), polish=0)
    total = report.params_before
    # A unit has 14 parameters.
    assert left * total - 14 < report.params_after <= left * total
    assert 1 - report.sparsity == report.params_after / total
    assert report.max_relative_difference < 1e-5
    small, whole = l0prune.load(tmp_path / "cut", network), l0prune.load(run, network)
    kept = l0prune.plan_of(small).kept["hidden"]
    largest = l0prune.plan_of(whole).kept["hidden"]
    assert set(kept) <= set(largest)
    # Its weights are those of the run, and nothing else has changed.
    rows = np.isin(largest, kept)
    assert torch.equal(small[0].weight, whole[0].weight[rows])
    assert torch.equal(small[3].weight, whole[3].weight[:, rows])
    assert torch.equal(small[3].bias, whole[3].bias)
    for row in report_of(run)["elastic"]["curve"]:
        if row["asked"] == pytest.approx(left):
            assert (row["parameters"], row["loss"]) == (
                report.params_after,
                pytest.approx(report.distill_loss_final, rel=1e-6),
            )


def test_a_cut_is_a_run_like_any_other(run: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    l0prune.cut(run, {"params": "50%"}, out=cut, build=network)
    assert report_of(cut)["cut"]["target"] == {"params": "params=50%"}
    assert report_of(cut)["distill_loss_final"] is None
    assert not l0prune.verify(cut, build=network).broken
    written = l0prune.write_report([run, cut], tmp_path / "page.html")
    assert "Held-out loss at each size" in {figure["title"] for figure in written.figures}
    page = (tmp_path / "page.html").read_text()
    assert f"l0prune cut {run} --target params=50%" in page
    with pytest.raises(l0prune.RunError, match="not an elastic run: it has one size"):
        l0prune.cut(cut, {"params": 0.4}, out=tmp_path / "again", build=network)


def test_several_targets_hold_at_once(run: Path, tmp_path: Path) -> None:
    report = l0prune.cut(run, {"params": 0.6, "macs": 0.5}, out=tmp_path / "cut", build=network)
    assert report.params_after <= 0.6 * report.params_before
    assert report.macs_after <= 0.5 * report.macs_before
    assert {row["metric"]: row["binds"] for row in report.targets} == {"params": False, "macs": True}


def test_a_polish_trains_on_and_is_repeated_bit_for_bit(run: Path, tmp_path: Path) -> None:
    made = [
        l0prune.cut(run, {"params": 0.4}, out=tmp_path / f"{n}", build=network, task=make_task(), polish=12)
        for n in (0, 1)
    ]
    assert made[0].distill_loss_final < made[0].distill_loss_after_removal
    first, second = ((tmp_path / f"{n}" / "model.safetensors").read_bytes() for n in (0, 1))
    assert first == second
    rows = [json.loads(line) for line in (tmp_path / "0" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert not l0prune.verify(tmp_path / "0", build=network).broken


@pytest.mark.parametrize("stop_at", [("joint", 9), ("joint", 30), ("further", 3)])
def test_a_resumed_elastic_run_equals_an_uninterrupted_one(stop_at: tuple[str, int], run: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    with pytest.raises(l0prune.Interrupted):
        l0prune.compress(make_task(), settings=ELASTIC, out=parts, observer=Watch(stop_at))
    l0prune.compress(make_task(), settings=ELASTIC, out=parts, resume=True)
    assert (parts / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert (parts / "order.json").read_bytes() == (run / "order.json").read_bytes()
    assert report_of(parts)["elastic"] == report_of(run)["elastic"]


def test_several_sizes_a_step_are_averaged(tmp_path: Path) -> None:
    settings = ELASTIC | {"elastic": {"smallest": 0.3, "sizes": 3}}
    report = l0prune.compress(make_task(), settings=settings, out=tmp_path / "run")
    assert report.sparsity == 0
    assert report.elastic is not None
    assert [row["asked"] for row in report.elastic["curve"]] == pytest.approx([0.3, 0.475, 0.65, 0.825, 1.0])


def test_batch_norms_of_a_cut_are_computed_anew(tmp_path: Path) -> None:
    def build() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(10, WIDTH),
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, 20),
            nn.BatchNorm1d(20),
            nn.ReLU(),
            nn.Linear(20, 3),
        )

    def task() -> l0prune.Task:
        model = build()
        groups = l0prune.discover(model, lambda net: net(torch.ones(4, 10))).groups
        objective = type(make_task().objective)(model)
        return make_task(objective=objective, groups=groups, observe=lambda net: net(torch.ones(4, 10)))

    run = tmp_path / "run"
    l0prune.compress(task(), settings=ELASTIC, out=run)
    with pytest.raises(l0prune.ConfigError, match="a cut of this run needs its data"):
        l0prune.cut(run, {"params": 0.5}, out=tmp_path / "cut", build=build)
    assert not (tmp_path / "cut").exists()
    l0prune.cut(run, {"params": 0.5}, out=tmp_path / "cut", build=build, task=task())
    cut = l0prune.load(tmp_path / "cut", build)
    seen = [cut[3](cut[2](cut[1](cut[0](x)))) for x in inputs(16)]
    # The norm before has its own statistics in evaluation mode, as batches have theirs while these are computed.
    torch.testing.assert_close(cut[1].running_mean, torch.stack([cut[0](x).mean(0) for x in inputs(16)]).mean(0))
    assert (cut[4].running_mean - torch.stack([x.mean(0) for x in seen]).mean(0)).abs().max() < 0.1


def inputs(number: int) -> Iterator[torch.Tensor]:
    return (batch[0] for batch in itertools.islice(batches(0), number))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"params": 0.29}, r"outside the range that was trained \(got 0.29, expected 0.3 to 0.9 of the size\)"),
        ({"params": 0.95}, r"outside the range that was trained \(got 0.95, expected 0.3 to 0.9"),
        ({"params": 100}, r"outside the range that was trained .*expected 0.3 to 0.9"),
        ({"macs": 0.1}, r"outside the range that was trained .*expected 0.3 to 0.9 of the params"),
        ({"latency": 0.5}, "a cut goes by a size that is counted: latency"),
        ({"parms": 0.5}, "parms"),
        ({"params": "half"}, "not a target"),
        ({}, "no targets"),
    ],
)
def test_what_was_not_trained_is_refused_and_leaves_nothing(target: Any, words: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(l0prune.L0PruneError, match=words):
        l0prune.cut(run, target, out=tmp_path / "cut", build=network)
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_no_elastic_run_or_taken_are_refused(run: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(l0prune.RunError, match="already there"):
        l0prune.cut(run, {"params": 0.5}, out=taken, build=network)
    with pytest.raises(l0prune.RunError, match="no run here"):
        l0prune.cut(tmp_path, {"params": 0.5}, out=tmp_path / "cut", build=network)
    for polish in (-1, 0.5, True):
        with pytest.raises(l0prune.ConfigError, match="polish out of range"):
            l0prune.cut(run, {"params": 0.5}, out=tmp_path / "cut", build=network, polish=polish)  # pyright: ignore[reportArgumentType]
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "report.json").unlink()
    with pytest.raises(l0prune.RunError, match="the run is not finished"):
        l0prune.cut(unfinished, {"params": 0.5}, out=tmp_path / "cut", build=network)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 9}, "order of another version"),
        ({"scores": {"hidden": [1.0]}}, "the order is not of this network"),
        ({"scores": {"other": [1.0]}}, "the order is not of this network"),
        ({"scores": {"hidden": ["high"] * WIDTH}}, "damaged file"),
        ({"smallest": 0.95}, "damaged file"),
        ({"largest": None}, "damaged file"),
    ],
)
def test_a_damaged_order_is_refused(change: dict[str, Any], words: str, run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    content = json.loads((damaged / "order.json").read_text()) | change
    (damaged / "order.json").write_text(json.dumps(content))
    with pytest.raises(l0prune.RunError, match=words):
        l0prune.cut(damaged, {"params": 0.5}, out=tmp_path / "cut", build=network)


def test_an_order_is_read_as_it_was_written(tmp_path: Path) -> None:
    scores = {"a": [0.1, 1 / 3], "b": [1e-17]}
    order = Order(
        smallest=0.25, largest=1.0, metric="macs", round_to=8, uniform=True, limits={"a*": [0.5, 1.0]}, scores=scores
    )
    write_order(tmp_path / "order.json", order)
    again = read_order(tmp_path / "order.json")
    assert (again.scores, again.limits, again.round_to, again.uniform) == (scores, order.limits, 8, True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_sparsity": 0.5}, "two targets"),
        ({"target": {"params": 0.5}}, "two targets"),
        ({"metric": "latency"}, "an elastic run needs a size that is counted"),
        ({"joint": {"steps": 0, "learning_rate": 1e-2}}, "an elastic run needs a joint stage"),
        ({"compile": True}, "an elastic run cannot be compiled"),
        ({"elastic": {"smallest": 0.3, "largest": 0.2}}, "elastic.largest out of range"),
        ({"elastic": {"smallest": 1.2}}, "elastic.smallest"),
        ({"elastic": {"smallest": 0.3, "sizes": 0}}, "elastic.sizes"),
        (
            {"controller": {"warmup_steps": 31}},
            r"the order is not final at the end of the joint stage.*lower controller\.warmup_steps",
        ),
    ],
)
def test_settings_that_do_not_go_with_an_elastic_run_are_refused(settings: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(l0prune.ConfigError, match=words):
        l0prune.compress(make_task(), settings=ELASTIC | settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
