"""From recipe, TOML and flags to settings: partial tables, names of stages, and what a resumed run may change."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest

import l0prune
from l0prune.plugin import STAGES, may_change, resolve
from l0prune.support import Setting


@dataclass(frozen=True)
class Loader:
    threads: Annotated[int, Setting(may_change=True)] = 1
    shuffle: bool = True


@dataclass(frozen=True)
class Options:
    width: int = 4
    workers: int = 0
    logs: Annotated[str, Setting(may_change=True)] = ""
    loader: Loader = field(default_factory=lambda: Loader(threads=3, shuffle=False))


class Toy:
    name, description, options = "toy", "", Options
    recipes = {"own": {}}  # noqa: RUF012

    def prepare(self, options, run): ...

    def build(self, architecture): ...


@pytest.mark.parametrize("stage", STAGES)
def test_a_partial_stage_keeps_the_other_defaults(stage: str) -> None:
    run = resolve(Toy(), {stage: {"steps": 5}})
    default = getattr(l0prune.RunConfig(plugin="toy"), stage)
    assert getattr(run, stage) == l0prune.StageConfig(steps=5, learning_rate=default.learning_rate)
    assert getattr(resolve(Toy(), {stage: {"learning_rate": 0.5}}), stage).steps == default.steps


def test_a_partial_table_of_a_plugin_keeps_its_defaults() -> None:
    assert resolve(Toy(), {"toy": {"loader": {"threads": 9}}}).options["loader"] == {"threads": 9, "shuffle": False}


@pytest.mark.parametrize(
    ("name", "right"),
    [("stage1", "joint"), ("step_2", "further"), ("stage-2", "further"), ("step1", "joint")],
)
def test_another_name_of_a_stage_is_told_the_right_one(name: str, right: str) -> None:
    with pytest.raises(l0prune.ConfigError, match=rf"no such setting: {name}; the table is called \[{right}\]"):
        resolve(Toy(), {name: {"steps": 3}})


def test_the_plugin_says_what_a_resumed_run_may_change() -> None:
    assert may_change(Toy()) == {"checkpoint_minutes", "keep_checkpoints", "toy.logs", "toy.loader.threads"}
    assert may_change(l0prune.get_plugin("speech")) == {"checkpoint_minutes", "keep_checkpoints", "speech.workers"}
