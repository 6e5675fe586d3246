"""The speech plugin's own settings: what they may be."""

from typing import Any

import pytest
from l0prune_speech.options import SpeechOptions

from l0prune import ConfigError
from l0prune.plugin import as_before, came_later


@pytest.mark.parametrize("name", ["l1_weight", "l2_weight", "cosine_weight"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_weight_of_the_loss_is_a_number_from_0_on(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} out of range .*expected 0 or more"):
        SpeechOptions(**{name: value})  # type: ignore[arg-type]


def test_some_weight_of_the_loss_is_above_0() -> None:
    with pytest.raises(ConfigError, match="nothing to minimise"):
        SpeechOptions(l1_weight=0.0, cosine_weight=0.0)
    SpeechOptions(l1_weight=0.0, cosine_weight=0.0, l2_weight=1.0)


@pytest.mark.parametrize(("settings", "name"), [({"data": ("clips", "")}, "data"), ({"teacher": ""}, "teacher")])
def test_what_is_empty_is_no_path(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is empty"):
        SpeechOptions(**settings)


def test_settings_of_terms_came_after_the_first_runs_which_did_what_their_defaults_say() -> None:
    from l0prune_speech.plugin import SpeechPlugin

    later = came_later(SpeechPlugin())
    assert {"speech.every_layer", "speech.unit_count", "speech.masked_share"} <= set(later)
    # Those of before are compared: a run that lacks one is another's.
    assert not {"speech.teacher", "speech.mode", "speech.terms"} & set(later)
    assert (later["speech.unit_layers"], later["speech.projections"]) == ([], True)


def test_a_setting_whose_default_is_new_says_what_was_done_before() -> None:
    from l0prune_speech.plugin import SpeechPlugin

    assert came_later(SpeechPlugin())["speech.short_clips"] == "skip"
    assert as_before(SpeechPlugin(), {"speech": {"mode": "layers"}}) == {"speech": {"short_clips": "skip"}}
    assert as_before(SpeechPlugin(), {"speech": {"short_clips": "join"}}) == {"speech": {}}
