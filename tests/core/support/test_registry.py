"""Registries: each key once, names that are unknown, classes by inheritance, modules that register at import."""

import sys
from pathlib import Path

import pytest

from l0prune import ConfigError, PluginError
from l0prune.support import ClassRegistry, Registry


def test_a_key_is_taken_once() -> None:
    registry: Registry[str, int] = Registry("colour")
    assert registry.register("red", 1) == registry["red"] == registry.named("red") == 1
    with pytest.raises(ConfigError, match=r"^the name of the colour is taken \(got red\); choose another, or replace"):
        registry.register("red", 2)
    assert registry["red"] == 1
    registry.register("red", 2, replace=True)
    assert dict(registry) == {"red": 2}


def test_who_registers_under_a_taken_key_is_told_what_stands_there() -> None:
    registry: Registry[str, int] = Registry(
        "colour", taken=lambda key, value: PluginError("taken", where=key, got=value)
    )
    registry.register("red", 1)
    with pytest.raises(PluginError, match=r"^taken: red \(got 1\)$"):
        registry.check_free(["blue", "red"])
    registry.check_free(["red"], replace=True)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("rde", "unknown colour (got rde, expected red, green or blue); did you mean 'red'?"),
        ("zzzz", "unknown colour (got zzzz, expected red, green or blue)"),
        ("", "unknown colour (got , expected red, green or blue)"),
        (["red"], "unknown colour (got ['red'], expected red, green or blue)"),
    ],
)
def test_an_unknown_name_is_told_the_known_ones_and_the_nearest(name: object, line: str) -> None:
    registry: Registry[str, int] = Registry("colour")
    for number, known in enumerate(("red", "green", "blue")):
        registry.register(known, number)
    with pytest.raises(ConfigError) as error:
        registry.named(name)
    assert str(error.value) == line


def test_the_error_for_an_unknown_name_says_what_the_caller_says() -> None:
    registry: Registry[str, int] = Registry("colour", unknown="no such colour")
    registry.register("red", 1)
    registry.register("green", 2)
    with pytest.raises(ConfigError, match=r"^no such colour: sky; choose one of green, red; mix one$"):
        registry.named("sky", where="sky", got=None, expected=None, hint="mix one")
    with pytest.raises(ConfigError, match=r"expected red\)"):
        registry.named("green", among=["red"])


def test_a_class_follows_its_nearest_registered_class() -> None:
    class Base: ...

    class Middle(Base): ...

    class Leaf(Middle): ...

    registry: ClassRegistry[str] = ClassRegistry("thing", taken="thing is known already")
    registry.register(Base, "base")
    assert registry.nearest_to(Leaf) == (Base, "base")
    registry.register(Middle, "middle")
    assert registry.nearest_to(Leaf) == (Middle, "middle")
    assert registry.nearest_to(int) == (None, None)
    with pytest.raises(ConfigError, match=rf"^thing is known already: {__name__}\..*Base; pass replace=True"):
        registry.register(Base, "another")


def test_modules_register_once_though_one_of_them_asks_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[str, int] = Registry("colour", own=["colours_a", "colours_b"])
    monkeypatch.setattr(Registry, "colours", registry, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("a", "b"):
        source = (
            "from l0prune.support import Registry\nRegistry.colours.load()\nRegistry.colours.register(__name__, 1)\n"
        )
        (tmp_path / f"colours_{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, f"colours_{name}", raising=False)
    for _ in range(2):
        registry.load()
    assert sorted(registry) == ["colours_a", "colours_b"]


def test_what_is_restored_is_exactly_what_was() -> None:
    registry: Registry[str, int] = Registry("colour")
    registry.register("red", 1)
    before = dict(registry)
    registry.register("blue", 2)
    registry.register("red", 3, replace=True)
    registry.restore(before)
    assert dict(registry) == before == {"red": 1}
    assert registry in Registry.made
