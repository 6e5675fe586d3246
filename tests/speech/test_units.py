"""Kinds of unit are named in one place; all else follows it."""

import re
from collections.abc import Callable
from pathlib import Path

from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.options import SpeechOptions
from l0prune_speech.units import DEFAULT_UNITS, UNITS

DOCS = Path(__file__).parents[2] / "docs"


def test_every_kind_has_its_groups_whose_names_have_the_numbers_of_layers(
    make_encoder: Callable[..., SpeechEncoder],
) -> None:
    encoder = make_encoder()
    for kind in UNITS:
        groups = encoder_groups(encoder, [kind])
        assert {group.kind for group in groups} == {kind}
        assert [next(filter(str.isdigit, group.name.split("."))) for group in groups] == [*map(str, range(len(groups)))]


def test_the_default_is_the_same_everywhere(make_encoder: Callable[..., SpeechEncoder]) -> None:
    encoder = make_encoder()
    assert SpeechOptions().units == DEFAULT_UNITS
    assert {group.kind for group in encoder_groups(encoder)} == set(DEFAULT_UNITS) < set(UNITS)


def test_pages_list_every_kind_and_no_other() -> None:
    page = (DOCS / "how-to/compress-speech.md").read_text(encoding="utf-8")
    table = page.partition("| unit |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert re.findall(r"`(\w+)`", " ".join(rows)) == [*UNITS]
    assert f"--units {','.join(DEFAULT_UNITS)}" in page
    settings = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    assert f"Kinds of unit to prune: {', '.join(UNITS)}." in settings
