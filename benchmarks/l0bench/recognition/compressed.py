"""Whisper tiny.en through `l0prune compress --recipe whisper`, as rows of results."""

import tempfile
import time
import wave
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import l0prune
from l0bench.compress_rows import measured
from l0bench.real_material.speech import SAMPLE_RATE, prompts
from l0bench.real_material.whisper_tiny import whisper_tiny
from l0bench.recognition.prompt_sets import SECONDS, Window, split
from l0prune import EvaluationSettings, Observer, assembled

IDENTITY = ("label", "part", "size", "steps", "objective", "seed")
PARTS = ("encoder", "whole")
DECODER = "model.decoder"
OBJECTIVES: Mapping[str, Mapping[str, float]] = {
    "task": {},
    "logits": {"logit_weight": 1.0, "task_weight": 0.0},
    "layers": {"logit_weight": 0.0, "task_weight": 0.0},
}
"""The recipe's; the last layer and the teacher's logits, without transcripts; the last layer alone."""
WINDOWS = 2
"""In a batch, as in one's own loop."""


@dataclass(frozen=True, kw_only=True)
class Wished:
    """One run."""

    label: str
    """What its settings are called in tables."""
    part: str
    """One of `PARTS`: the encoder, whose decoder stays as it is; or both."""
    size: int
    """Per cent to remove of the part's parameters, the table of tokens not counted."""
    steps: int
    """Of both stages."""
    objective: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """That go over the recipe's, by dotted names."""

    def row(self) -> dict[str, Any]:
        """As a row of results begins."""
        return asdict(self)


DENSE = Wished(label="dense", part="whole", size=0, steps=0, objective="task", seed=0)


def clips(material: Path) -> dict[str, Path]:
    """Lists of training and test clips with transcripts, written at first use: the prompts of one's own loop."""
    folder = material / "clips"
    if not folder.exists():
        found = split(prompts("en", material))
        with assembled(folder) as made:
            made.mkdir()
            for name in ("train", "test"):
                _write(made, name, getattr(found, name))
    return {name: folder / f"{name}.tsv" for name in ("train", "test")}


def _write(folder: Path, name: str, windows: Sequence[Window]) -> None:
    (folder / name).mkdir()
    lines = ["path\ttext"]
    for number, window in enumerate(windows):
        path = f"{name}/{number:04d}.wav"
        with wave.open(str(folder / path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(window.samples.tobytes())
        lines.append(f"{path}\t{window.text}")
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@cache
def counted(teacher: Path) -> dict[str, int]:
    """Parameters of each part, and of all, with the positions of a window of ten seconds."""
    from l0prune_speech.families import Wish, open_network

    network = open_network(str(teacher), Wish())
    network.fit_window(SECONDS)
    model: Any = network.model
    whole = sum(p.numel() for p in model.parameters())
    encoder = sum(p.numel() for p in model.get_submodule("model.encoder").parameters())
    return {"encoder": encoder, "whole": whole - model.get_input_embeddings().weight.numel(), "all": whole}


def run(wished: Wished, material: Path) -> dict[str, Any]:
    """Compress and score.

    Returns:
        The fields of the wish and its figures; `failed` in their place where an error of the library's ended it.
    """
    teacher, lists = whisper_tiny(material), clips(material)
    dense = wished.label == "dense"
    return measured(wished, lambda: _dense(teacher, lists) if dense else _compressed(wished, teacher, lists))


def _compressed(wished: Wished, teacher: Path, lists: Mapping[str, Path]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.perf_counter(), time.process_time()
        report = l0prune.compress(
            "speech", recipe="whisper", settings=settings_of(wished, teacher, lists), out=out, observer=Observer()
        )
        facts = {
            "seconds": round(time.perf_counter() - began[0], 1),
            "processor_seconds": round(time.process_time() - began[1], 1),
            "step_seconds": report.step_seconds,
            "sparsity": report.sparsity,
            "loss_before_cut": report.distill_loss_before_removal,
            "loss_after_cut": report.distill_loss_after_removal,
            "loss_final": report.distill_loss_final,
        }
        return facts | _scored(str(out), lists)


def settings_of(wished: Wished, teacher: Path, lists: Mapping[str, Path]) -> dict[str, Any]:
    """What `compress` is given beside the recipe."""
    sizes = counted(teacher)
    held = [DECODER] if wished.part == "encoder" else []
    settings: dict[str, Any] = {
        "target_sparsity": wished.size / 100 * sizes[wished.part] / sizes["all"],
        "metric": "params",
        "seed": wished.seed,
        "device": "cpu",
        "steps": wished.steps,
        "speech": {
            "teacher": str(teacher),
            "data": [str(lists["train"])],
            "window_seconds": SECONDS,
            "batch_seconds": WINDOWS * SECONDS,
            "ignored": held,
            "frozen": held,
            "workers": 0,
            **OBJECTIVES[wished.objective],
        },
    }
    for name, value in wished.settings.items():
        *tables, last = name.split(".")
        place = settings
        for table in tables:
            place = place.setdefault(table, {})
        place[last] = value
    return settings


def _dense(teacher: Path, lists: Mapping[str, Path]) -> dict[str, Any]:
    """The teacher, in the window of the others."""
    from l0prune_speech.families import Wish, open_network

    network = open_network(str(teacher), Wish())
    network.fit_window(SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        network.export(network.model, Path(folder))
        return {"seconds": 0.0} | _scored(folder, lists)


def _scored(model: str, lists: Mapping[str, Path]) -> dict[str, Any]:
    """Word errors on the test clips, as `l0prune evaluate` counts them."""
    asked = EvaluationSettings(tasks=("asr",), data=(str(lists["test"]),), max_minutes=60, against=model)
    found = l0prune.evaluate([model], plugin="speech", settings=asked, note=lambda text: None)
    words, characters = (next(s for s in found.scores if s.task == task) for task in ("asr", "asr characters"))
    return {
        "parameters": found.models[model]["parameters"],
        "errors_capped": words.facts["capped"],
        "errors_capped_interval": list(words.facts["capped_interval"]),
        "errors_plain": words.values[0],
        "errors_plain_interval": list(words.facts["interval"]),
        "character_errors_capped": characters.facts["capped"],
    }
