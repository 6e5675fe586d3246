"""The settings of a run: layers of them, recipes, and the file they are kept in."""

import math
from pathlib import Path

import pytest

import l0prune


class TestSettings:
    def test_layers_in_order(self) -> None:
        speech = l0prune.get_plugin("speech")
        first = {"target_sparsity": 0.5, "joint": {"steps": 100}}
        second = {"joint": {"learning_rate": 0.5}, "speech": {"workers": 0}}
        run = l0prune.resolve(speech, first, second)
        assert (run.recipe, run.target_sparsity) == ("quick", 0.5)
        assert (run.joint.steps, run.joint.learning_rate, run.joint.warmup_steps) == (100, 0.5, 40)
        assert run.options["workers"] == 0

    def test_layer_names_the_recipe_and_the_argument_wins(self) -> None:
        speech = l0prune.get_plugin("speech")
        named = {"recipe": "dphubert-base"}
        assert l0prune.resolve(speech, named).joint.steps == 50_000
        assert l0prune.resolve(speech, named, recipe="quick").joint.steps == 400

    @pytest.mark.parametrize("recipe", ["quick", "dphubert-base", "dphubert-large"])
    def test_description_reads_back(self, recipe: str, tmp_path: Path) -> None:
        speech = l0prune.get_plugin("speech")
        run = l0prune.resolve(speech, recipe=recipe)
        path = tmp_path / "settings.toml"
        path.write_text(l0prune.write_toml(l0prune.describe(run)), encoding="utf-8")
        assert l0prune.resolve(speech, l0prune.read_toml(path)) == run

    def test_toml_round_trip(self, tmp_path: Path) -> None:
        values = {
            "plain": 1,
            "float": 1e-30,
            "infinite": [math.inf, -math.inf],
            "flag": True,
            "text": 'é😀 "q" \\ \n \t \x7f',
            "a.b c": {"ünder": {"x": [[1, 2], ["y"]]}, "": 0},
        }
        path = tmp_path / "settings.toml"
        path.write_text(l0prune.write_toml(values), encoding="utf-8")
        assert l0prune.read_toml(path) == values
