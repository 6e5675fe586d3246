"""Extensions: found by their entry points, imported once; one that is broken is named."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from l0prune_speech import extensions
from l0prune_speech.formats import format_named

from l0prune import PluginError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module of an extension, which fills it with what it does."""

    def entry_points(*, group: str) -> tuple[EntryPoint, ...]:
        assert group == "l0prune_speech.extensions"
        return (EntryPoint(name="own", value="l0prune_own_extension", group=group),)

    monkeypatch.setattr(extensions, "entry_points", entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))
    extensions.load_extensions.cache_clear()
    yield tmp_path / "l0prune_own_extension.py"
    sys.modules.pop("l0prune_own_extension", None)
    extensions.load_extensions.cache_clear()


def test_an_extension_registers_what_it_adds(installed: Path) -> None:
    installed.write_text(
        "from dataclasses import replace\n"
        "from l0prune_speech.formats import format_named, register_format\n"
        "register_format(replace(format_named('dphubert'), name='own'))\n"
    )
    assert format_named("own").suffix == ".pth"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (
            "from l0prune_speech.formats import format_named, register_format; "
            "register_format(format_named('dphubert'))",
            "the name of the format is taken",
        ),
    ],
)
def test_a_broken_extension_is_named(installed: Path, code: str, words: str) -> None:
    installed.write_text(code)
    with pytest.raises(PluginError, match=r"extension cannot be loaded: own \(l0prune_own_extension\)") as caught:
        format_named("dphubert")
    assert words in str(caught.value)
