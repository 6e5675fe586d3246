"""Quality against size: what dominates, which numbers runs have, which of them compare, and files all or none."""

import csv
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from l0prune import ConfigError, RunError, write_pareto
from l0prune.report.pareto import dominators

MakeRun = Callable[..., Path]
SETTINGS = 'plugin = "digits"\n[digits]\ndata = ["a"]\nunits = 3'
BENCH_ROW = {"model": "run", "load": "1 s", "dtype": "float32", "backend": "eager", "batch": 1, "threads": 1}


@pytest.fixture
def report(finished_report: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """A report.json with a size and a loss."""

    def make(params: int = 25, loss: float | None = 0.5, **more: Any) -> dict[str, Any]:
        return {**finished_report, "params_after": params, "distill_loss_final": loss, **more}

    return make


def bench(latency: float, **more: Any) -> dict[str, Any]:
    models = {"run": {"parameters": 25, "file_bytes": 1000}}
    return {"models": models, "rows": [{**BENCH_ROW, "latency_ms": latency, **more}], "processor": "a processor"}


def score(mean: float, **more: Any) -> list[dict[str, Any]]:
    # The first one is another model's.
    rows = [{"model": "teacher", "mean": 0.99}, {"model": "run", "mean": mean, **more}]
    return [{"task": "keywords", "metric": "accuracy", "higher_is_better": True, **row} for row in rows]


def quiet(*arguments: Any, **settings: Any) -> Any:
    """`write_pareto` where nothing is to be warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return write_pareto(*arguments, **settings)


@pytest.mark.parametrize("most", [3, 1000])
def test_domination_as_it_is_defined(most: int) -> None:
    source = random.Random(most)
    for _ in range(300):
        points = [(source.randrange(most), source.randrange(most)) for _ in range(source.randrange(12))]
        for (x, y), other in zip(points, dominators(points), strict=True):
            better = [(a, b) for a, b in points if a <= x and b <= y and (a, b) != (x, y)]
            assert (other is None) == (not better)
            if other is not None:
                assert points[other] in better
                # What dominates is on the front itself.
                assert dominators(points)[other] is None


def test_the_files_hold_the_runs(make_run: MakeRun, report: Any, tmp_path: Path) -> None:
    sizes = {"a": (20_000, 0.5), "b": (40_000, 0.25), "c": (45_000, 0.3), "d": (20_000, 0.5)}
    runs = [make_run(name, report=report(*pair)) for name, pair in sizes.items()]
    drawn = quiet([*runs, runs[0]], tmp_path / "new" / "out")
    assert [(p.run, p.x, p.y, p.dominated_by) for p in drawn.points] == [
        ("a", 20_000, 0.5, None),
        ("b", 40_000, 0.25, None),
        ("c", 45_000, 0.3, "b"),
        # Equal runs are both on the front.
        ("d", 20_000, 0.5, None),
    ]
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == ["pareto.csv", "pareto.png", "pareto.svg"]
    assert Path(drawn.png).read_bytes().startswith(b"\x89PNG")
    svg = ElementTree.parse(drawn.svg).getroot()
    words = "".join(svg.itertext())
    for text in ("thousand parameters", "loss at the end", "not dominated", "c at 45000, 0.3 (dominated)"):
        assert text in words
    # Colours of its own: no page's style sheet is there.
    assert "var(" not in Path(drawn.svg).read_text(encoding="utf-8")
    with Path(drawn.csv).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["params"]) for row in rows] == [pair[0] for pair in sizes.values()]
    assert [float(row["loss"]) for row in rows] == [pair[1] for pair in sizes.values()]
    assert [row["dominated by"] for row in rows] == ["", "", "b", ""]
    again = quiet(runs, tmp_path / "again")
    for kind in ("png", "svg", "csv"):
        assert Path(getattr(again, kind)).read_bytes() == Path(getattr(drawn, kind)).read_bytes()
    json.dumps(drawn.to_json(), allow_nan=False)


def test_more_of_a_score_is_better_and_of_an_error_rate_is_not(make_run: MakeRun, tmp_path: Path) -> None:
    for better, dominated in ((True, "low"), (False, "high")):
        runs = [
            make_run(f"{better}/{name}/run", evaluation=score(mean, deviation=0.01, higher_is_better=better))
            for name, mean in (("low", 0.6), ("high", 0.8))
        ]
        drawn = quiet(runs, tmp_path / f"out{better}", y="keywords")
        assert [point.y for point in drawn.points] == [0.6, 0.8]
        assert drawn.points[0].y_deviation == 0.01
        worse = [point.run for point in drawn.points if point.dominated_by]
        assert worse == [f"{dominated}/run"]


def test_every_number_of_a_run_can_be_an_axis(make_run: MakeRun, report: Any, tmp_path: Path) -> None:
    target = {"metric": "reads", "counts": "million reads", "unit": 2, "size": 10, "budget": 11, "dense": 20}
    content = report(
        **{"latency_before_ms": 9.0, "latency_after_ms": 3.0, "speedup": 3.0},
        stage_seconds={"joint": 2.0, "further": 1.5},
        losses_final={"l1": 0.125},
        targets=[{**target, "binds": True, "alone_units": 0.5, "alone": {"reads": 0.5}}],
        metric_facts={"my_reads": 7, "text": "x", "sure": True},
    )
    rows = [{**BENCH_ROW, "latency_ms": 4.0}, {**BENCH_ROW, "dtype": "int8", "latency_ms": 2.0}]
    run = make_run(report=content, bench={**bench(0), "rows": rows}, evaluation=score(0.5))
    wanted = {
        **{"params": 25, "macs": 200, "latency": 4.0, "latency-at-cut": 3.0, "speedup": 3.0, "training-seconds": 3.5},
        **{"latency:1 s,float32,eager": 4.0, "latency:1 s,int8,eager": 2.0, "file_bytes": 1000},
        **{"loss:l1": 0.125, "keywords": 0.5, "keywords:accuracy": 0.5, "reads": 5.0, "my_reads": 7},
    }
    for number, (name, value) in enumerate(wanted.items()):
        (point,) = quiet([run], tmp_path / f"out{number}", x=name).points
        assert (name, point.x) == (name, value)
    with pytest.raises(RunError) as refused:
        write_pareto([run], tmp_path / "out", x="nothing")
    for name in wanted:
        assert name in str(refused.value)


def test_the_latency_at_the_cut_where_nothing_else_was_measured(make_run: MakeRun, report: Any, tmp_path: Path) -> None:
    run = make_run(report=report(latency_before_ms=9.0, latency_after_ms=3.0, speedup=3.0))
    (point,) = quiet([run], tmp_path / "out", x="latency").points
    assert point.x == 3.0


def test_another_models_times_are_not_the_runs(make_run: MakeRun, report: Any, tmp_path: Path) -> None:
    rows = [{**BENCH_ROW, "model": model, "latency_ms": ms} for model, ms in (("teacher", 9.0), ("runs/mine", 3.0))]
    models = {"teacher": {"parameters": 100}, "runs/mine": {"parameters": 25}}
    run = make_run("runs/mine", report=report(), bench={"models": models, "rows": rows})
    (point,) = quiet([run], tmp_path / "out", x="latency").points
    assert point.x == 3.0


@pytest.mark.parametrize(
    ("axes", "other", "words"),
    [
        ({}, {"report": {"teacher": "another"}}, ["loss", "teacher differs (embedded in a, another in b)"]),
        ({}, {"settings": SETTINGS.replace('"a"', '"b"')}, ["loss", 'digits.data differs (["a"] in a, ["b"] in b)']),
        ({}, {"settings": SETTINGS.replace("digits", "letters")}, ["loss", "plugin differs"]),
        ({}, {"report": {"losses_final": {"l2": 0.1}}}, ["loss", "loss parts differs (l1 in a, l2 in b)"]),
        ({"x": "macs"}, {"report": {"macs_per": "second"}}, ["macs", "macs_per differs"]),
        ({"x": "latency"}, {"bench": bench(1.0, dtype="int8")}, ["latency", "dtype differs"]),
        ({"x": "latency"}, {"bench": {**bench(1.0), "processor": "other"}}, ["latency", "processor differs"]),
        ({"y": "keywords"}, {"evaluation": score(0.5, data="b")}, ["keywords", "data differs (a in a, b in b)"]),
    ],
)
def test_runs_that_do_not_compare_are_warned_of(
    axes: dict[str, str], other: dict[str, Any], words: list[str], make_run: MakeRun, report: Any, tmp_path: Path
) -> None:
    parts = {"losses_final": {"l1": 0.1}}
    files = {"settings": SETTINGS, "bench": bench(2.0), "evaluation": score(0.4, data="a")}
    first = make_run("a", **files, report=report(**parts))
    # A score may be called as the folder is.
    for folder in ("b", "same"):
        changed = {} if folder == "same" else other
        content = report(**{**parts, **changed.get("report", {})})
        make_run(folder, **{**files, **changed, "report": content})
    for name in ("a", "b", "same"):
        rows = json.loads((tmp_path / name / "evaluation.json").read_text())
        rows[1]["model"] = name
        (tmp_path / name / "evaluation.json").write_text(json.dumps(rows))
    assert quiet([first, tmp_path / "same"], tmp_path / "quiet", **axes).warnings == ()
    with pytest.warns(UserWarning, match="may not compare"):
        said = write_pareto([first, tmp_path / "b"], tmp_path / "out", **axes).warnings
    for word in words:
        assert word in said[0]


class TestBadInput:
    def test_no_runs(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="no run to draw"):
            write_pareto([], tmp_path / "out")
        with pytest.raises(RunError, match="no run here"):
            write_pareto([tmp_path], tmp_path / "out")

    def test_the_run_without_the_number_is_named(self, make_run: MakeRun, report: Any, tmp_path: Path) -> None:
        runs = [make_run("a", report=report()), make_run("b", report=report(loss=None))]
        with pytest.raises(RunError, match=r"no such number of the run: .*/b \(got loss, expected one of params, macs"):
            write_pareto(runs, tmp_path / "out")
        with pytest.raises(RunError, match=r"/a \(got parms, .*did you mean 'params'"):
            write_pareto(runs, tmp_path / "out", x="parms")
        with pytest.raises(RunError, match=r"got latency, .*; write bench.json into the run's folder"):
            write_pareto(runs, tmp_path / "out", x="latency")
        assert not (tmp_path / "out").exists()

    def test_an_unfinished_run(self, make_run: MakeRun, report: Any, tmp_path: Path) -> None:
        runs = [make_run("a", report=report()), make_run("b", report=report())]
        (runs[1] / "report.json").unlink()
        with pytest.raises(RunError, match=r"not finished: the run has no 'params': .*/b; go on with it"):
            write_pareto(runs, tmp_path / "out")

    def test_the_same_number_twice(self, make_run: MakeRun, report: Any, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="both axes are the same"):
            write_pareto([make_run(report=report())], tmp_path / "out", x="loss")

    def test_a_score_of_which_nothing_says_what_is_better(self, make_run: MakeRun, tmp_path: Path) -> None:
        unknown = make_run("unknown/run", evaluation=score(0.5, higher_is_better=None))
        known = [make_run(f"{b}/run", evaluation=score(0.5, higher_is_better=b)) for b in (True, False)]
        with pytest.raises(ConfigError, match=r"unknown whether more is better: keywords \(got nothing"):
            write_pareto([unknown], tmp_path / "out", y="keywords")
        with pytest.raises(ConfigError, match="got both"):
            write_pareto(known, tmp_path / "out", y="keywords")
        # One of them says it.
        assert len(quiet([unknown, known[0]], tmp_path / "out", y="keywords").points) == 2

    def test_all_files_or_none(
        self, make_run: MakeRun, report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make_run(report=report())
        taken = tmp_path / "taken"
        taken.mkdir()
        (taken / "mine").write_text("")
        with pytest.raises(RunError, match="already there"):
            write_pareto([run], taken)
        assert [path.name for path in taken.iterdir()] == ["mine"]
        with pytest.raises(RunError, match="cannot write"):
            write_pareto([run], taken / "mine" / "out")

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        # The last of the three.
        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(RunError, match="No space left"):
            write_pareto([run], tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "taken"]
