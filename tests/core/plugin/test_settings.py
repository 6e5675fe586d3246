"""From recipe, TOML and flags to settings: partial tables, names of stages, and what a resumed run may change."""

from dataclasses import dataclass, field
from typing import Annotated, Any

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


class Warm(Toy):
    """Its recipe has a warm-up of a tenth of the steps."""

    recipes = {"own": {"joint": {"steps": 400, "learning_rate": 0.1, "warmup_steps": 40}}}  # noqa: RUF012


@pytest.mark.parametrize(("steps", "warmup"), [(400, 40), (40, 40), (39, 3), (5, 0), (0, 0)])
def test_a_stage_of_fewer_steps_than_the_recipes_warm_up_keeps_its_share(steps: int, warmup: int) -> None:
    joint = resolve(Warm(), {"joint": {"steps": steps}}).joint
    assert (joint.steps, joint.warmup_steps, joint.learning_rate) == (steps, warmup, 0.1)
    # What a caller says stands, and is refused where it does not fit.
    assert resolve(Warm(), {"joint": {"steps": steps, "warmup_steps": 0}}).joint.warmup_steps == 0
    with pytest.raises(l0prune.ConfigError, match="warmup_steps out of range: joint"):
        resolve(Warm(), {"joint": {"steps": steps, "warmup_steps": steps + 1}})


@pytest.mark.parametrize("recipe", [name for name in l0prune.get_plugin("speech").recipes if name != "elastic"])
@pytest.mark.parametrize("stage", STAGES)
def test_recipes_take_a_stage_of_few_steps(recipe: str, stage: str) -> None:
    assert getattr(resolve(l0prune.get_plugin("speech"), {stage: {"steps": 5}}, recipe=recipe), stage).steps == 5


def test_what_is_no_table_is_refused() -> None:
    wrong: Any = [("joint", 5)]
    with pytest.raises(l0prune.ConfigError, match="settings are not a table"):
        resolve(Toy(), wrong)


def test_a_setting_of_the_plugin_outside_its_table_is_told_where_it_stands() -> None:
    with pytest.raises(l0prune.ConfigError, match=r"no such setting: width; did you mean 'toy.width'\?"):
        resolve(Toy(), {"width": 3})


def test_a_partial_table_of_a_plugin_keeps_its_defaults() -> None:
    assert resolve(Toy(), {"toy": {"loader": {"threads": 9}}}).options["loader"] == {"threads": 9, "shuffle": False}


@pytest.mark.parametrize(
    ("name", "right"),
    [
        *(("stage1", "joint"), ("step_2", "further"), ("stage-2", "further"), ("step1", "joint")),
        *(("Stage 1", "joint"), ("step two", "further"), ("second_stage", "further"), ("joint_stage", "joint")),
    ],
)
def test_another_name_of_a_stage_is_told_the_right_one(name: str, right: str) -> None:
    with pytest.raises(l0prune.ConfigError, match=rf"no such setting: {name}; the table is called \[{right}\]"):
        resolve(Toy(), {name: {"steps": 3}})


def test_the_plugin_says_what_a_resumed_run_may_change() -> None:
    assert may_change(Toy()) == {"checkpoint_minutes", "keep_checkpoints", "toy.logs", "toy.loader.threads"}
    assert may_change(l0prune.get_plugin("speech")) == {"checkpoint_minutes", "keep_checkpoints", "speech.workers"}
