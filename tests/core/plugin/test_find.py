"""Finding and checking plugins."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

import l0prune.plugin.find
from l0prune.errors import PluginError
from l0prune.plugin.find import get_plugin, plugin_names
from l0prune.plugin.protocols import Plugin


@dataclass(frozen=True)
class Options:
    """None."""


class Good:
    name, description, options = "good", "does nothing", Options
    recipes = {"only": {}}  # noqa: RUF012

    def prepare(self, options, run): ...

    def build(self, architecture): ...


class NoBuild:
    name, description, options, recipes = "x", "", Options, {"a": {}}

    def prepare(self, options, run): ...


class NoRecipe(Good):
    recipes = {}  # noqa: RUF012


class OddOptions(Good):
    options = dict


class Raises(Good):
    def __init__(self) -> None:
        raise OSError("no such library")


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch):
    def register(**plugins: type) -> None:
        class Entry(EntryPoint):
            def load(self):
                return plugins[self.name]

        entries = [Entry(name, f"somewhere:{name}", "l0prune.plugins") for name in plugins]
        monkeypatch.setattr(l0prune.plugin.find, "entry_points", lambda group: entries)

    return register


def test_found_by_name(register) -> None:
    register(good=Good, another=Good)
    assert plugin_names() == ["another", "good"]
    plugin = get_plugin("good")
    assert isinstance(plugin, Good)
    assert isinstance(plugin, Plugin)


def test_embedded_plugin_is_found_not_listed() -> None:
    assert "speech" in plugin_names()
    assert get_plugin("speech").name == "speech"


def test_missing(register) -> None:
    register(good=Good)
    with pytest.raises(PluginError, match=r"no such plugin: goood; did you mean 'good'\?"):
        get_plugin("goood")


def test_none_installed(register) -> None:
    register()
    with pytest.raises(PluginError, match=r"choose one of \(none\)"):
        get_plugin("speech")


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (NoBuild, r"incomplete: bad \(somewhere:bad\) \(expected attributes build\)"),
        (NoRecipe, r"no recipe: bad \(somewhere:bad\)"),
        (OddOptions, r"no dataclass: bad \(somewhere:bad\)"),
        (Raises, r"cannot be loaded: bad \(somewhere:bad\) \(got OSError: no such library\)"),
    ],
)
def test_broken(register, plugin: type, words: str) -> None:
    register(bad=plugin)
    with pytest.raises(PluginError, match=words):
        get_plugin("bad")
