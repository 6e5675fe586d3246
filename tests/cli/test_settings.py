"""`--set`, the flags that a plugin's options make, and the reference of all settings."""

import sys
from pathlib import Path

import pytest
from l0prune_cli.settings_reference import settings_reference

PLUGIN = '''
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Options:
    width: int = 32
    """Channels of the first layer."""
    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    folder: Path | None = None
    counts: list[int] = field(default_factory=list)
    name: str = ""
    fast: bool = True
    seed: int = 7
    """Has the name of a flag that there is."""
    inner: Inner = field(default_factory=Inner)
    layers: tuple[Inner, ...] = ()


class Plugin:
    name, description, options = "forms", "options of many forms", Options
    recipes = {"only": {}}

    def prepare(self, options, run): ...

    def build(self, architecture): ...
'''


@pytest.fixture
def shown(tmp_path, monkeypatch, l0prune_call):
    """What `l0prune compress --plugin forms --print-config` shows, or refuses."""
    info = tmp_path / "l0prune_forms-1.0.dist-info"
    info.mkdir()
    (tmp_path / "l0prune_forms.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: l0prune_forms\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[l0prune.plugins]\nforms = l0prune_forms:Plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda *flags: l0prune_call("compress", "--plugin", "forms", *flags)
    sys.modules.pop("l0prune_forms", None)


def lines(outcome) -> list[str]:
    return outcome.succeeded().out.splitlines()


def test_help_shows_the_flags_of_the_plugin_alone(shown) -> None:
    text = shown("--help").succeeded().out
    for flag in ("--width", "--kind", "--colour", "--folder", "--counts", "--name", "--fast / --no-fast"):
        assert f"  {flag} " in text
    assert "[forms] Channels of the first layer." in text
    for flag in ("--teacher", "--data", "--units", "--inner", "--layers"):
        assert flag not in text
    assert text.count("--seed") == 1


def test_flags_of_a_plugin(shown) -> None:
    flags = "--width 8 --kind b --colour blue --folder 3 --counts 1 --counts 2 --name true --no-fast --seed 5"
    found = lines(shown("--print-config", *flags.split()))
    table = found[found.index("[forms]") :]
    expected = ("width = 8", 'kind = "b"', 'colour = "blue"', 'folder = "3"', "counts = [1, 2]", 'name = "true"')
    assert {*expected, "fast = false", "seed = 7"} <= {*table}
    assert "seed = 5" in found[: found.index("[forms]")]


def test_set_reaches_every_setting_and_wins_over_the_file(shown, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("log_every = 3\n[joint]\nsteps = 7\nlearning_rate = 0.5\n[forms]\nwidth = 9\n")
    sets = ["joint.steps=8", "controller.kind=projected", "gates.drop_rates={ffn=0.5}", "forms.width=10"]
    sets += ["forms.seed=1", "forms.inner.depth=4", "forms.layers=[{depth=2}, {}]", "device=cpu"]
    found = lines(shown("--print-config", "--config", config, *(word for text in sets for word in ("--set", text))))
    expected = ("steps = 8", "learning_rate = 0.5", "log_every = 3", 'kind = "projected"', "ffn = 0.5", "width = 10")
    assert {*expected, "seed = 1", "depth = 4", "layers = [{depth = 2}, {depth = 1}]", 'device = "cpu"'} <= {*found}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "joint.stpes=3"], ["no such setting: joint.stpes", "did you mean 'steps'?"]),
        (["--set"], ["option '--set' requires an argument", "see l0prune compress --plugin forms --help"]),
        (["--set", "width=3"], ["no such setting: width", "did you mean 'forms.width'?"]),
        (["--set", "jiont.steps=3"], ["no such setting: jiont", "did you mean 'joint'?"]),
        (["--set", "forms.wdith=3"], ["no such setting: forms.wdith", "did you mean 'width'?"]),
        (["--set", "joint.steps=1.5"], ["wrong type: joint.steps", "got 1.5", "expected a whole number"]),
        (["--set", "joint.steps=many"], ["wrong type: joint.steps", "got 'many'", "expected a whole number"]),
        (["--set", "joint=3"], ["not a table: joint"]),
        (["--set", "joint.steps=1", "--set", "joint.steps=2"], ["given twice: joint.steps", "'joint.steps=2'"]),
        (["--set", "joint.steps"], ["not a setting: --set", "KEY=VALUE"]),
        (["--set", "controller.kind=projektd"], ["unknown controller.kind", "got projektd", "projected"]),
        (["--set", "seed=3", "--seed", "3"], ["given twice: seed", "--seed and --set"]),
        (["--set", "forms.width=3", "--width", "3"], ["given twice: forms.width", "--width and --set"]),
        (["--set", "plugin=x"], ["given twice: plugin"]),
        (["--set", "recipe=only", "--recipe", "only"], ["given twice: recipe"]),
        (["--set", "joint.steps=3", "--steps", "3"], ["given twice: joint.steps", "--steps and --set joint.steps"]),
        (["--set", "steps=3", "--set", "controller.warmup_steps=1"], ["given twice: controller.warmup_steps"]),
        (["--set", "target_ms=3", "--target-sparsity", "0.5"], ["two targets"]),
        (["--set", "stage2.steps=3"], ["no such setting: stage2", "[further]"]),
        (["--width", "wide"], ["wrong type: forms.width", "got 'wide'", "expected a whole number"]),
        (["--counts", "1", "--counts", "x"], ["wrong type: forms.counts[1]", "got 'x'"]),
        (["--kind", "c"], ["unknown forms.kind", "got c", "a, b"]),
        (["--colour", "green"], ["unknown forms.colour", "got green", "red, blue"]),
        (["--teacher", "x"], ["no such option: --teacher", "see l0prune compress --plugin forms --help"]),
    ],
)
def test_refused(flags, words, shown) -> None:
    shown("--print-config", *flags).refused(*words)


def test_groups_take_them_too(bench, l0prune_call) -> None:
    flags = ["groups", "--plugin", "speech", "--config", bench.settings, "--json"]
    outcome = l0prune_call(*flags, "--set", "speech.units=['ffn']").succeeded()
    assert '"kind": "ffn"' in outcome.out
    assert '"kind": "conv"' not in outcome.out
    l0prune_call(*flags, "--set", "speech.units=['fnn']").refused("no such kind of unit: fnn", "did you mean 'ffn'?")


def test_the_reference_is_of_today() -> None:
    path = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    assert path.read_text(encoding="utf-8") == settings_reference(), "run python -m l0prune_cli.settings_reference"
