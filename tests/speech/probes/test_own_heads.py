"""Networks through their own heads: the metrics, and who can be scored on what."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from l0prune_speech.families import SpeechNetwork
from l0prune_speech.families.transformers_network import TransformersNetwork
from l0prune_speech.plugin import SpeechPlugin
from l0prune_speech.probes.own_heads import Errors, normalised
from tiny_networks import save_network

from l0prune import ConfigError, DataError, EvaluationSettings


def test_texts_are_compared_without_case_and_marks() -> None:
    assert normalised("  Don\u2019t STOP, 'now' -- caf\u00e9 (\u2460)!") == "don't stop now caf\u00e9 1"
    assert normalised("...") == ""


def test_errors_have_an_interval_over_clips() -> None:
    errors = Errors(counts=np.array([0, 2, 12, 1]), lengths=np.array([4, 4, 4, 4]))
    assert errors.share == 15 / 16
    assert errors.capped == 7 / 16
    low, high = errors.interval()
    assert 0 <= low < errors.share < high <= 3
    low, high = errors.interval(capped=True)
    assert 0 <= low < errors.capped < high <= 1
    same = Errors(counts=np.full(9, 1), lengths=np.full(9, 4))
    assert same.interval() == (0.25, 0.25)


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Path]:
    """Writes a list of clips of noise: listed("text", ["a b", "c"])."""

    def make(column: str, labels: list[str]) -> Path:
        noise = np.random.default_rng(0)
        rows = [f"path\t{column}"]
        for number, label in enumerate(labels):
            soundfile.write(tmp_path / f"{number}.wav", 0.1 * noise.standard_normal(9_000 + 800 * number), 16_000)
            rows.append(f"{number}.wav\t{label}")
        (tmp_path / "list.tsv").write_text("\n".join(rows))
        return tmp_path / "list.tsv"

    return make


def evaluated(folder: Path, data: Path, *tasks: str) -> Any:
    settings = EvaluationSettings(tasks=tasks, data=(str(data),), device="cpu")
    return SpeechPlugin().evaluate([str(folder)], settings, lambda _text: None).to_json()


def test_word_and_character_errors(
    tmp_path: Path, listed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_network("wav2vec2", tmp_path / "network")
    data = listed("text", ["Bad cab.", "a", "deaf bead"])
    heard = iter(["BAD CAB", "A B", "DEAF"])

    def answers(network: SpeechNetwork, model: Any, inputs: Any, seconds: float) -> Any:
        return [network.encode(next(heard))]

    monkeypatch.setattr(TransformersNetwork, "answers", answers)
    found = evaluated(folder, data)
    words, characters = found["scores"]
    assert (words["task"], words["mean"]) == ("asr", 2 / 5)
    assert characters["mean"] == pytest.approx((2 + 5) / (7 + 1 + 9))
    assert words["facts"]["interval"][0] <= 0.4 <= words["facts"]["interval"][1]
    assert found["tasks"]["asr"]["normalisation"].startswith("NFKC, lower case")
    assert found["tasks"]["asr"]["test_clips"] == 3


def test_classes_frames_and_speakers(tmp_path: Path, listed: Callable[..., Path]) -> None:
    data = listed("label", ["LABEL_0"] * 3 + ["LABEL_1"])
    (score,) = evaluated(save_network("classes", tmp_path / "classes"), data, "classify")["scores"]
    assert 4 * score["mean"] in (0, 1, 2, 3, 4)
    found = evaluated(save_network("whisper-classes", tmp_path / "whisper"), data)
    assert found["tasks"]["classify"]["chance"] == 0.75
    data = listed("label", ["LABEL_0:0.3 LABEL_1:0.3", "LABEL_2:0.6"])
    (score,) = evaluated(save_network("frames", tmp_path / "frames"), data)["scores"]
    assert 0 <= score["mean"] <= 1
    data = listed("speaker", ["x", "x", "y", "y"])
    (score,) = evaluated(save_network("x-vector", tmp_path / "speakers"), data)["scores"]
    assert 0 <= score["mean"] <= 1
    assert score["facts"]["pairs"] == 6
    low, high = score["facts"]["interval"]
    assert 0 <= low <= score["mean"] <= high <= 1


def test_what_cannot_be_scored_is_refused(tmp_path: Path, listed: Callable[..., Path]) -> None:
    data = listed("text", ["a"])
    ctc = save_network("wav2vec2", tmp_path / "ctc")
    with pytest.raises(ConfigError, match=r"no head for the task.*got distill, expected asr"):
        evaluated(save_network("hubert-encoder", tmp_path / "encoder"), data, "asr")
    with pytest.raises(ConfigError, match=r"several tasks .*got asr, phone"):
        evaluated(ctc, data, "asr", "phone")
    with pytest.raises(DataError, match=r"no labels for the task.*expected a column label"):
        evaluated(save_network("classes", tmp_path / "classes"), data, "classify")
    with pytest.raises(ConfigError, match="no labelled clips: asr"):
        SpeechPlugin().evaluate([str(ctc)], EvaluationSettings(tasks=("asr",)), print)
    with pytest.raises(DataError, match=r"the head has no such class: .*list.tsv:2 .*got 'cat'"):
        evaluated(tmp_path / "classes", listed("label", ["cat"]), "classify")
