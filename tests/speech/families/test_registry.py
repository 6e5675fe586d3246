"""Families by name: which there are, what is taken, how another one is added."""

from dataclasses import replace
from pathlib import Path

import pytest
from l0prune_speech.families import families, family_named, register_family
from l0prune_speech.families.registry import OURS

from l0prune import ConfigError, PluginError


def test_each_file_of_ours_registers_a_family() -> None:
    folder = Path(__file__).parents[3] / "plugins/speech/l0prune_speech/families"
    assert all((folder / f"{name}.py").is_file() for name in OURS)
    assert {"hubert", "wav2vec2", "wavlm", "whisper", "wav2vec2-bert", "parakeet_ctc", "moonshine"} <= families().keys()
    assert {name for name, family in families().items() if family.layout == "torchaudio"} == {
        "hubert",
        "wav2vec2",
        "wavlm",
    }


def test_a_name_is_taken_once() -> None:
    with pytest.raises(PluginError, match=r"the name of the family is taken: whisper .*expected another name"):
        register_family(replace(family_named("hubert"), name="whisper"))
    mine = replace(family_named("whisper"), name="my-whisper")
    assert register_family(mine) is family_named("my-whisper")


def test_who_asks_for_an_unknown_family_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"got wisper, expected one of .*wavlm, whisper.*register_family adds one"):
        family_named("wisper")
