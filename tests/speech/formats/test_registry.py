"""The registry of formats: what may be registered, and that each file and folder has one format."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats import FORMATS, Format, Source, format_named, formats, load_teacher, register_format
from l0prune_speech.formats.checkpoint import Checkpoint, from_encoder

from l0prune import ConfigError, DataError

Make = Callable[..., SpeechEncoder]
READ: dict[str, Any] = {"reads": "a file", "claims": lambda source: False, "read": lambda source: None}


@pytest.mark.parametrize("name", ["dphubert", "diarizen", "huggingface", "s3prl"])
def test_what_is_written_is_claimed_by_one_format(make_dense: Make, tmp_path: Path, name: str) -> None:
    form, path = format_named(name), tmp_path / "network"
    if not form.suffix:
        path.mkdir()
    assert form.write is not None
    form.write(from_encoder(make_dense("wavlm-base")), path, "card")
    paths = [path, *(path.iterdir() if path.is_dir() else ())]
    claiming = {one.name: [f.name for f in formats().values() if f.claims and f.claims(Source(one))] for one in paths}
    # DiariZen's file is DPHuBERT's.
    assert claiming.pop("network") == ["dphubert" if name == "diarizen" else name]
    assert all(len(claimed) <= 1 for claimed in claiming.values()), claiming


def test_names_are_taken_once() -> None:
    form = Format(name="dphubert", **READ)
    with pytest.raises(ConfigError, match=r"the name of the format is taken \(got dphubert\); .*replace=True"):
        register_format(form)
    assert register_format(form, replace=True) is formats()["dphubert"]
    assert "dphubert" not in FORMATS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "the format has no name"),
        ({"read": None}, r"the format reads, but not wholly: mine \(expected read, claims and reads\)"),
        ({"holds": "a file"}, r"the format writes, but not wholly: mine \(expected write, open, opened_by and holds\)"),
        ({"reads": "", "claims": None, "read": None}, "the format neither reads nor writes: mine"),
    ],
)
def test_a_format_is_registered_whole_or_not_at_all(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        register_format(replace(Format(name="mine", **READ), **change))
    with pytest.raises(ConfigError, match="not a format"):
        register_format(lambda: None)  # type: ignore[arg-type]
    assert "mine" not in formats()


def test_later_registrations_are_asked_first(make_dense: Make, tmp_path: Path) -> None:
    path, asked = tmp_path / "student.pth", []
    form = format_named("dphubert")
    assert form.write is not None
    form.write(from_encoder(make_dense("hubert-base")), path, "")

    def read(source: Source) -> Checkpoint:
        asked.append(source.path)
        raise DataError("mine")

    claims = lambda source: source.holds(state_dict=dict, config=dict)  # noqa: E731
    register_format(Format(name="mine", reads="a file of mine", claims=claims, read=read))
    with pytest.raises(DataError, match="mine"):
        load_teacher(str(path))
    assert asked == [path]
    torch.save({"nothing": 1}, path)
    with pytest.raises(DataError, match=r"not a checkpoint of a known format: .*expected .*a file of mine"):
        load_teacher(str(path))
