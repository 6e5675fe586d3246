"""`l0prune report`: one page and one JSON document about runs, finished or not."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import l0prune

Call = Callable[..., Any]


@pytest.fixture
def run(finished, tmp_path: Path) -> Path:
    """A finished run of this test's own."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


@pytest.fixture
def unfinished(run: Path) -> Path:
    """What a run killed in its first stage leaves: a line was being written."""
    for name in ("report.json", "model.json", "model.safetensors", "architecture.png"):
        (run / name).unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:7]) + lines[7][:40])
    return run


def reported(l0prune_call: Call, *arguments: object) -> dict[str, Any]:
    return json.loads(l0prune_call("report", *arguments, "--json").succeeded().out)


class TestFinished:
    def test_the_figures_are_those_of_the_run(self, run, finished, l0prune_call: Call) -> None:
        found = reported(l0prune_call, run)
        (facts,) = found["runs"]
        report, parts = finished.report, facts["parts"]["rows"]
        assert facts["complete"]
        assert facts["report"] == report
        for moment in ("before", "after"):
            assert sum(part[f"params_{moment}"] for part in parts) == report[f"params_{moment}"]
            # Rounded for each part.
            macs = sum(part[f"macs_{moment}"] for part in parts)
            assert macs == pytest.approx(report[f"macs_{moment}"], abs=len(parts))
        kept = {unit["group"]: {"units": unit["units"], "kept": unit["kept"]} for unit in facts["kept"]}
        assert kept == report["kept_units"]
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        (loss,) = facts["curves"]["loss"]
        assert (loss["steps"], loss["values"]) == ([r["position"] for r in rows], [r["loss"] for r in rows])
        assert facts["curves"]["cut_at"] == 10

    @pytest.mark.usefixtures("rendered")
    def test_the_page_stands_alone(self, run, finished, l0prune_call: Call) -> None:
        found = reported(l0prune_call, run)
        page = Path(found["page"])
        assert page == run / "report.html"
        text = page.read_text(encoding="utf-8")
        assert "default-src 'none'" in text
        assert "//" not in re.sub(r"<code>.*?</code>", "", text, flags=re.DOTALL)
        assert f"{finished.report['params_after']:,}" in text
        assert found["figures"]
        for figure in found["figures"]:
            assert figure["title"] in text
            assert Path(figure["png"]).read_bytes().startswith(b"\x89PNG")
        assert text.count("<svg") == len(found["figures"])
        titles = {figure["title"].split(":")[0] for figure in found["figures"]}
        assert {"Convolution channels", "Attention heads", "FFN units"} < titles
        assert {"Training loss", "Training loss by part", "Multiplier λ1", "Parameters by part"} < titles
        assert "MACs by part, per second of audio, in an input of 10 s" in titles
        assert text.count('<th scope="col">must stay</th>') == 2

    def test_it_is_made_again_in_place_of_an_earlier_one(self, run, tmp_path: Path, l0prune_call: Call) -> None:
        out = tmp_path / "pages" / "mine.html"
        first = l0prune_call("report", run, "--out", out).succeeded()
        assert first.out.startswith(f"{out}: 1 run, ")
        content = out.read_bytes()
        figures = out.parent / "mine-figures"
        stale, foreign = figures / "stale.png", figures / "foreign.png"
        stale.write_bytes(next(figures.iterdir()).read_bytes())
        foreign.write_bytes((run / "architecture.png").read_bytes())
        l0prune_call("report", run, "--out", out).succeeded()
        assert out.read_bytes() == content
        assert not stale.exists()
        assert foreign.exists()
        assert sorted(path.name for path in out.parent.iterdir()) == ["mine-figures", "mine.html"]

    def test_its_command_repeats_the_run(self, run, finished, l0prune_call: Call) -> None:
        program, *arguments = shlex.split(reported(l0prune_call, run)["runs"][0]["repeat"])
        assert program == "l0prune"
        l0prune_call(*arguments).succeeded()
        again = run.with_name("run-again")
        assert (again / "model.safetensors").read_bytes() == finished.model

    @pytest.mark.usefixtures("loaded_here")
    def test_probes_and_latency_are_shown_where_they_were_measured(self, run, l0prune_call: Call) -> None:
        probes = [
            {"model": str(run), "task": "keywords", "metric": "accuracy", "mean": 0.875, "deviation": 0.0125},
            {"model": "teacher", "task": "keywords", "metric": "accuracy", "mean": 0.9, "deviation": None},
        ]
        (run / "evaluation.json").write_text(json.dumps(probes))
        bench = l0prune_call("bench", run, "--seconds", "0.05", "--lengths", "0.5", "--json").succeeded()
        (run / "bench.json").write_text(bench.out)
        found = reported(l0prune_call, run)
        assert found["runs"][0]["probes"] == probes
        assert {"name": "keywords, accuracy", "text": "0.875 ± 0.013"} in found["runs"][0]["measures"]
        text = Path(found["page"]).read_text(encoding="utf-8")
        (row,) = found["runs"][0]["bench"]["rows"]
        assert "0.875 ± 0.013" in text
        assert f"{row['latency_ms']:.2f} ms" in text
        threads = l0prune.counted(row["threads"], "thread")
        titles = {figure["title"] for figure in found["figures"]}
        assert {"keywords, accuracy", f"Latency in ms, 0.5 s, batch 1, {threads}"} < titles

    def test_an_evaluation_is_read_as_it_is_written(self, run, l0prune_call: Call) -> None:
        scores = [{"model": "student", "task": "keywords", "values": [0.5, 0.75], "mean": 0.625, "deviation": 0.177}]
        evaluation = {"tasks": {"keywords": {"metric": "accuracy"}}, "scores": scores, "shuffled_labels": False}
        row = {"model": "student", "task": "keywords", "mean": 0.625, "deviation": 0.177}
        for shuffled, metric in ((False, "accuracy"), (True, "accuracy, labels shuffled")):
            (run / "evaluation.json").write_text(json.dumps({**evaluation, "shuffled_labels": shuffled}))
            (facts,) = reported(l0prune_call, run)["runs"]
            assert facts["probes"] == [{**row, "metric": metric}]

    def test_layers_beside_the_teachers_are_drawn(self, run, l0prune_call: Call) -> None:
        layers = [
            {"model": model, "layer": layer, "teacher_layer": layer, "measures": {"cka": 0.9 - layer / 10, "l1": l1}}
            for model, l1 in (("student", 0.5), ("thinner", None))
            for layer in range(3)
        ]
        scores = [{"model": "student", "task": "keywords", "mean": 0.625}]
        (run / "evaluation.json").write_text(json.dumps({"scores": scores, "layers": layers}))
        found = reported(l0prune_call, run)
        assert found["runs"][0]["layers"] == layers
        alts = {figure["title"]: figure["alt"] for figure in found["figures"] if "Layers" in figure["title"]}
        assert alts == {
            "Layers beside the teacher's: cka": "Layers beside the teacher's: cka, by layer: "
            "student from 0.9 to 0.7; thinner from 0.9 to 0.7.",
            "Layers beside the teacher's: l1": "Layers beside the teacher's: l1, by layer: student from 0.5 to 0.5.",
        }


class TestUnfinished:
    def test_it_says_so_and_shows_what_is_there(self, unfinished, finished, l0prune_call: Call) -> None:
        found = reported(l0prune_call, unfinished)
        (facts,) = found["runs"]
        assert not facts["complete"]
        assert facts["progress"] == "on record are 7 of 10 steps of the joint stage (distil and prune)"
        assert (facts["report"], facts["parts"], facts["kept"]) == (None, None, [])
        assert len(facts["curves"]["loss"][0]["steps"]) == 7
        assert facts["settings"]["joint"]["steps"] == 10
        text = Path(found["page"]).read_text(encoding="utf-8")
        assert f"This run is not finished: {facts['progress']}." in text
        _, *arguments = shlex.split(facts["repeat"])
        # Made anew from the start, as no checkpoint was saved.
        l0prune_call(*arguments).succeeded()
        assert (unfinished / "model.safetensors").read_bytes() == finished.model

    def test_before_the_first_step(self, unfinished, l0prune_call: Call) -> None:
        (unfinished / "metrics.jsonl").unlink()
        found = reported(l0prune_call, unfinished)
        assert found["figures"] == []
        assert "no step is on record yet" in Path(found["page"]).read_text(encoding="utf-8")


def test_several_runs_side_by_side(bench, run, toml, tmp_path: Path, monkeypatch, l0prune_call: Call) -> None:
    other = tmp_path / "elsewhere" / "run"
    changed = toml(("log_every = 1", "log_every = 1\ntarget_sparsity = 0.5"))
    bench.compress("--out", other, config=changed).succeeded()
    half = Path(shutil.copytree(other, tmp_path / "half"))
    (half / "report.json").unlink()
    monkeypatch.chdir(tmp_path)
    # The same run twice is one run.
    found = reported(l0prune_call, run, other, half, run)
    assert Path(found["page"]).resolve() == tmp_path / "report.html"
    assert [facts["name"] for facts in found["runs"]] == [f"{tmp_path.name}/run", "elsewhere/run", "half"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<tr><th scope="row">target_sparsity</th><td>0.75</td><td>0.5</td><td>0.5</td></tr>' in text
    assert "not finished: " in text
    titles = [figure["title"] for figure in found["figures"]]
    assert titles[:3] == ["Training loss", "Expected sparsity", "Held-out loss at the end against size"]
    assert titles.count("Training loss") == 4
    assert "half" in found["figures"][0]["alt"]
    assert len({figure["png"] for figure in found["figures"]}) == len(titles)


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    import torch

    class Fit(l0prune.Objective):
        def forward(self, batch: Any) -> l0prune.Losses:
            return l0prune.Losses(total=(self.student(batch) - batch[:, :1]).square().mean())

    network = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    look = torch.randn(8, 4)
    groups = l0prune.discover(network, lambda net: net(look)).groups
    task = l0prune.Task(
        objective=Fit(network), groups=groups, batches=lambda _: iter(lambda: look, None), observe=lambda net: net(look)
    )
    settings = {"device": "cpu", **{stage: {"steps": 3, "learning_rate": 0.01} for stage in ("joint", "further")}}
    l0prune.compress(task, settings=settings, out=tmp_path / "own")
    written = l0prune.write_report([tmp_path / "own"])
    (facts,) = written.runs
    assert facts.parts is not None
    assert "nothing tells how to build the dense network" in facts.parts.note
    assert (
        facts.repeat
        == f"l0prune.compress(task, config='{tmp_path}/own/config.toml', out='{tmp_path}/own-again', resume=False)"
    )
    assert "unit" in written.figures[0]["title"]


class TestBadInput:
    def test_no_run(self, tmp_path: Path, l0prune_call: Call) -> None:
        l0prune_call("report", tmp_path / "nowhere").refused("no such folder", "nowhere")
        l0prune_call("report", tmp_path).refused("no run here", "config.toml")
        assert list(tmp_path.iterdir()) == []
        assert l0prune_call("report").code == 2

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("report.json", "{", ["not a JSON file", "report.json"]),
            ("report.json", "[]", ["damaged file", "report.json", "got list"]),
            ("report.json", "{}", ["damaged file", "report.json: teacher", "got nothing"]),
            ("model.json", "{}", ["not a pruned model", "model.json"]),
            ("config.toml", "joint = 3", ["damaged file", "config.toml: joint", "got 3"]),
            ("config.toml", "joint = = 3", ["not a TOML file", "config.toml"]),
            ("evaluation.json", '{"scores": [], "layers": [3]}', ["damaged file", "row 1", "got int"]),
            ("evaluation.json", "3", ["damaged file", "evaluation.json", "expected a list of rows"]),
            ("evaluation.json", "{}", ["damaged file", "evaluation.json: scores", "got nothing"]),
            ("evaluation.json", '[{"model": 3}]', ["damaged file", "evaluation.json, row 1: model", "got 3"]),
            ("bench.json", "[]", ["damaged file", "bench.json"]),
        ],
    )
    def test_damaged_file(self, name, content, words, run, l0prune_call: Call) -> None:
        (run / name).write_text(content)
        l0prune_call("report", run).refused(*words)
        assert not (run / "report.html").exists()

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda line: line[: len(line) // 2], ["damaged line", "metrics.jsonl, line 3"]),
            (lambda line: "3", ["damaged file", "metrics.jsonl, line 3", "got int"]),
            (lambda line: line.replace('"loss"', '"lass"'), ["metrics.jsonl, line 3: loss", "got nothing"]),
        ],
    )
    def test_damaged_metrics(self, damage, words, run, l0prune_call: Call) -> None:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        lines[2] = damage(lines[2])
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        l0prune_call("report", run).refused(*words)

    def test_out_is_a_folder(self, run, tmp_path: Path, l0prune_call: Call) -> None:
        l0prune_call("report", run, "--out", tmp_path).refused("a folder is there", "name an .html file")

    def test_a_name_that_is_too_long(self, run, tmp_path: Path, l0prune_call: Call) -> None:
        name = "x" * 300
        l0prune_call("report", tmp_path / name).refused("cannot read", name, "File name too long")
        l0prune_call("report", run, "--out", tmp_path / name).refused("cannot write", name, "File name too long")

    def test_out_cannot_be_written(self, run, tmp_path: Path, l0prune_call: Call) -> None:
        (tmp_path / "file").write_text("")
        l0prune_call("report", run, "--out", tmp_path / "file" / "page.html").refused("cannot write")
