"""benchmarks/fine_tuned.py: runs what is missing and makes a table; its clips and its fine-tuned network are usable."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import command as script
from l0bench.fine_tuned import clips, networks, trials
from l0bench.fine_tuned.trials import Wished
from l0bench.real_material.speech import LANGUAGES, SAMPLE_RATE, Prompt

fine_tuned = script("fine_tuned")


@pytest.fixture
def material(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a few prompts of noise are all that there is."""
    generator = np.random.default_rng(0)

    def prompts(language: str, material: Path) -> list[Prompt]:
        sounds = [generator.standard_normal(int(SAMPLE_RATE * seconds)) * 900 for seconds in np.linspace(0.8, 1.6, 8)]
        return [
            Prompt(name=f"{language}{i}", samples=sound.astype(np.int16), transcript="a word or two")
            for i, sound in enumerate(sounds)
        ]

    monkeypatch.setattr(clips, "prompts", prompts)
    monkeypatch.setattr(clips, "_TESTED", 2)
    return tmp_path


def test_who_speaks_when_covers_each_clip_to_its_end(material: Path) -> None:
    for path in clips.lists("frames", material).values():
        found = networks.labelled_clips(path)
        assert found
        for samples, label in found:
            spans = [part.rpartition(":") for part in label.split()]
            assert sum(float(seconds) for *_, seconds in spans) == pytest.approx(len(samples) / SAMPLE_RATE, abs=4e-3)
            speakers = [name for name, *_ in spans if name != "pause"]
            assert len(set(speakers)) == len(speakers) == 3


def test_no_clip_is_in_both_lists(material: Path) -> None:
    found = {name: networks.labelled_clips(path) for name, path in clips.lists("speaker", material).items()}
    sounds = {name: {samples.numpy().tobytes() for samples, _ in part} for name, part in found.items()}
    assert not sounds["train"] & sounds["test"]
    assert {label for _, label in found["test"]} == {*LANGUAGES}


def test_a_fine_tuned_network_is_opened_with_its_head(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from l0prune_speech.families import Wish, open_network

    monkeypatch.setitem(networks.STEPS, "speaker", 3)
    monkeypatch.setattr(networks, "_BATCH_SECONDS", 3.0)
    folder = networks.network("speaker", material)
    assert networks.network("speaker", material) == folder
    found: Any = open_network(str(folder), Wish())
    assert found.task == "speaker"
    assert type(found.model).__name__ == networks.CLASSES["speaker"]
    heard = found.hear(found.model, found.inputs([torch.randn(SAMPLE_RATE)]))
    assert heard.logits is not None
    assert heard.logits.isfinite().all()


def test_rows_that_are_there_are_not_run_again_and_make_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Wished] = []

    def run(wished: Wished, material: Path) -> dict[str, Any]:
        ran.append(wished)
        error = 0.1 + 0.01 * wished.seed + 0.1 * (wished.method == "distillation")
        figures = {"error": error, "interval": [error - 0.02, error + 0.02]}
        return wished.row() | figures | {"parameters": 1_000_000 * (100 - wished.size), "seconds_in_all": 1.0}

    monkeypatch.setattr(trials, "run", run)
    out = tmp_path / "rows.jsonl"
    wish = ["run", "--tasks", "ctc", "--methods", "task loss", "distillation", "--out", str(out), "--seeds"]
    assert fine_tuned.main([*wish, "0"]) == 0
    assert fine_tuned.main([*wish, "0", "1"]) == 0
    assert [(wished.method, wished.seed) for wished in ran] == [
        ("dense", 0),
        ("task loss", 0),
        ("distillation", 0),
        ("task loss", 1),
        ("distillation", 1),
    ]
    assert fine_tuned.main(["table", "--out", str(out)]) == 0
    table = (tmp_path / "rows.md").read_text()
    assert "| 0 | dense |  | 1 | 10.00 | 8.00 to 12.00 |  | 100.00 |" in table
    assert "| 50 | task loss | 100 | 2 | 10.50 ± 0.71 | 8.00 to 12.00 | +0.5 deviations | 50.00 |" in table
    assert table.index("task loss") < table.index("distillation")
