"""`l0prune plugins`, and a plugin of somebody else that is installed beside the embedded one."""

import json
import sys
from pathlib import Path

import pytest

import l0prune

TOY = """
import itertools
from dataclasses import dataclass

import torch
from torch import nn

import l0prune


@dataclass(frozen=True, kw_only=True)
class Options:
    width: int = 32


class Fit(l0prune.Objective):
    def forward(self, batch):
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.student(inputs), labels)
        return l0prune.Losses(total=loss, amount=len(inputs))


def batches(position):
    for number in itertools.count(position):
        inputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(number))
        yield inputs, inputs[:, :3].argmax(1)


class Toy:
    name, description, options = "toy", "a perceptron", Options
    recipes = {"short": {"joint": {"steps": 5, "learning_rate": 1e-2}, "further": {"steps": 3, "learning_rate": 1e-2}}}

    def build(self, architecture):
        width = architecture["width"]
        return nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, 3))

    def prepare(self, options, run):
        index = l0prune.consecutive(options.width)
        ends = (("0.weight", 0, "PRODUCES"), ("0.bias", 0, "PRODUCES"), ("2.weight", 1, "CONSUMES"))
        places = tuple(l0prune.Place(tensor=t, dim=d, role=l0prune.Role[r], index=index) for t, d, r in ends)
        return l0prune.Task(
            objective=Fit(self.build({"width": options.width})),
            groups=[l0prune.PruneGroup(name="hidden", kind="unit", units=options.width, places=places)],
            batches=batches,
            observe=lambda model: model(torch.ones(2, 10)),
            architecture={"width": options.width},
        )
"""
BROKEN = {
    "absent": ("nowhere:Plugin", "plugin cannot be loaded: absent (nowhere:Plugin)", "ModuleNotFoundError"),
    "syntax": ("l0prune_broken_syntax:Plugin", "plugin cannot be loaded", "SyntaxError"),
    "raises": ("l0prune_broken:Raises", "plugin cannot be loaded", "ZeroDivisionError"),
    "bare": ("l0prune_broken:Bare", "plugin is incomplete: bare", "attributes description, options, recipes, prepare"),
    "no_options": ("l0prune_broken:NoOptions", "options are no dataclass", "l0prune_broken:NoOptions"),
    "no_recipe": ("l0prune_broken:NoRecipe", "plugin has no recipe", "at least one"),
}
BROKEN_CODE = """
from dataclasses import dataclass


class Raises:
    def __init__(self):
        1 / 0


class Bare:
    name = "bare"


class NoOptions:
    name, description, options, recipes = "no_options", "", dict, {"a": {}}

    def prepare(self, options, run): ...

    def build(self, architecture): ...


@dataclass
class Options: ...


class NoRecipe(NoOptions):
    options, recipes = Options, {}
"""


def install(folder: Path, name: str, entry_points: dict[str, str]) -> None:
    """What an installer leaves behind of a distribution."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{key} = {value}\n" for key, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[l0prune.plugins]\n{lines}")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("l0prune_toy", "l0prune_broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def toy(site) -> None:
    (site / "l0prune_toy.py").write_text(TOY)
    install(site, "l0prune_toy", {"toy": "l0prune_toy:Toy"})


@pytest.fixture
def broken(site) -> None:
    (site / "l0prune_broken.py").write_text(BROKEN_CODE)
    (site / "l0prune_broken_syntax.py").write_text("class Plugin(:\n")
    install(site, "l0prune_broken", {name: target for name, (target, *_) in BROKEN.items()})


def test_lists_speech(l0prune_call) -> None:
    rows = json.loads(l0prune_call("plugins", "--json").succeeded().out)
    speech = next(row for row in rows if row["name"] == "speech")
    assert speech["recipes"] == ["quick", "elastic", "dphubert-base", "dphubert-large", "dpwavlm-base-plus", "whisper"]
    table = l0prune_call("plugins").succeeded().out
    assert "dphubert-base" in table
    assert "\x1b" not in table


def test_third_party_plugin_from_list_to_opened_network(toy, tmp_path, l0prune_call) -> None:
    rows = json.loads(l0prune_call("plugins", "--json").succeeded().out)
    assert {row["name"] for row in rows} == {"speech", "toy"}
    config = tmp_path / "toy.toml"
    config.write_text("target_sparsity = 0.5\n[toy]\nwidth = 24\n")
    flags = ["--plugin", "toy", "--config", config]
    (row,) = json.loads(l0prune_call("groups", *flags, "--json").succeeded().out)
    assert (row["name"], row["units"], row["unit_parameters"], row["proved"]) == ("hidden", 24, 10 + 1 + 3, True)
    report = json.loads(l0prune_call("compress", *flags, "--out", tmp_path / "run", "--json").succeeded().out)
    assert report["params_before"] == 24 * 14 + 3
    assert report["params_after"] == 11 * 14 + 3  # 12 units would be one too many: 171 of 339 is more than half.
    student = l0prune.load(tmp_path / "run")
    assert sum(parameter.numel() for parameter in student.parameters()) == report["params_after"]
    assert report["distill_loss_final"] is None  # It holds nothing out.
    wrong = l0prune_call("compress", *flags, "--out", tmp_path / "other", "--teacher", "x")
    wrong.refused("no such option: --teacher", "see l0prune compress --plugin toy --help")
    # A run knows its plugin.
    l0prune_call("evaluate", tmp_path / "run").refused("plugin evaluates nothing: toy")
    # What it does not bring is done as for any network.
    measured = json.loads(l0prune_call("bench", tmp_path / "run", "--seconds", 0.2, "--json").succeeded().out)
    assert str(report["params_after"]) in json.dumps(measured)
    formats = json.loads(l0prune_call("export", "--list", "--plugin", "toy", "--json").succeeded().out)
    assert "safetensors" in {row["name"] for row in formats}
    written = tmp_path / "student.safetensors"
    l0prune_call("export", tmp_path / "run", "--to", "safetensors", "--out", written).succeeded()
    assert written.exists()
    l0prune_call("bench", tmp_path / "run", "--plugin", "nobody").refused("no such plugin: nobody")
    for plugin in ("speech", "toy"):
        (tmp_path / plugin).mkdir()
        (tmp_path / plugin / "config.toml").write_text(f'plugin = "{plugin}"\n')
    l0prune_call("bench", tmp_path / "speech", tmp_path / "toy").refused("runs of several plugins")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin_is_one_line(name, broken, l0prune_call) -> None:
    _, *words = BROKEN[name]
    for command in ("compress", "groups"):
        l0prune_call(command, "--plugin", name).refused(*words)


def test_broken_plugins_do_not_hide_the_others(broken, l0prune_call) -> None:
    rows = {row["name"]: row for row in json.loads(l0prune_call("plugins", "--json").succeeded().out)}
    assert rows.keys() == {"speech", *BROKEN}
    assert rows["speech"]["recipes"]
    problems = json.loads(l0prune_call("doctor", "--json").succeeded().out)["problems"]
    for name, (_, words, _) in BROKEN.items():
        assert any(words.split(":")[0] in problem and name in problem for problem in problems)
        assert words.split(":")[0] in rows[name]["description"]


def test_torchaudio_that_cannot_be_loaded(bench, tmp_path, monkeypatch) -> None:
    """As beside a torch of another CUDA version."""
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    bench.compress("--out", tmp_path / "run").refused("torchaudio cannot be loaded", "from the same index")
    assert not (tmp_path / "run").exists()
