"""What holds for every test: random draws repeat, and time is no judge. Who runs the tests; labelled sound."""

import json
import os
import random
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from l0prune.support import Registry

# Imported before the first test, which would take for its own what they register.
for _home in ("l0prune.discovery", "l0prune.layers", "l0prune.size", "l0prune_speech.distillation.terms"):
    import_module(_home)
for _folder in ("families", "formats"):
    import_module(f"l0prune_speech.{_folder}.registry")

_SLOW = [HealthCheck.too_slow]
settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.load_profile("repeatable")

# One thread a process, also of those that tests start: workers share the cores, and sums are the same everywhere.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Workers are told a width that nobody asked for; tests say which one they want.
for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)
MOST_WORKERS, MANY_FILES = 4, 12


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Many files of tests are run by a worker for each core; few by this process alone, since a worker starts slowly.

    `-n` overrules it (`-n 0`: this process alone). Without pytest-xdist nothing is changed.
    """
    asked = config.option
    if getattr(asked, "numprocesses", 0) is not None or asked.tx or hasattr(config, "workerinput"):
        return
    watched = asked.usepdb or asked.trace or asked.collectonly or asked.capture == "no"
    places = [config.invocation_params.dir / argument for argument in config.args]
    files = sum(sum(1 for _ in place.rglob("test_*.py")) if place.is_dir() else 1 for place in places)
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    if workers > 1 and files >= MANY_FILES and not watched and not asked.keyword:
        asked.numprocesses = workers
        # Each begins with a part of the files in their order; who is done takes over tests of another.
        asked.dist = "worksteal" if asked.dist == "no" else asked.dist


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Each test begins with the same seeds, and leaves the number of threads as it was: sums depend on it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """What a test registers is gone after it: no test meets another's metrics, layers, rules, formats or families."""
    for registry in Registry.made:
        registry.load()
    kept = [(registry, dict(registry)) for registry in Registry.made]
    yield
    for registry, before in kept:
        registry.restore(before)


@pytest.fixture
def rendered() -> None:
    """For tests of pictures: matplotlib makes them whole."""


@pytest.fixture(autouse=True)
def _unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PNG files of runs and reports are composed, but hold a single point: to render them is a third of a short run."""
    if "rendered" in request.fixturenames:
        return
    save = Figure.savefig

    def save_a_point(self: Figure, file: Any, **settings: Any) -> None:
        if settings.get("format") != "png":
            return save(self, file, **settings)
        words = PngInfo()
        for name, text in (settings.get("metadata") or {}).items():
            words.add_text(name, text)
        Image.new("L", (1, 1)).save(file, "PNG", pnginfo=words)
        return None

    monkeypatch.setattr(Figure, "savefig", save_a_point)


RATE = 16_000
PHONES = dict(zip("abcdef", (400, 700, 1100, 1700, 2600, 3800), strict=True))
"""Frequencies in Hz."""
KEYWORDS = ("ab", "cd", "ef", "da")


def sound(phones: str, speaker: int, noise: np.random.Generator) -> np.ndarray:
    """A tone a phone, over a hum that tells the speaker and some noise."""
    time = np.arange(round(0.1 * RATE)) / RATE
    tones = np.concatenate([np.sin(2 * np.pi * PHONES[phone] * time) * np.hanning(len(time)) for phone in phones])
    hum = np.sin(2 * np.pi * (120 + 40 * ((2.5 * speaker) % 4)) * np.arange(len(tones)) / RATE)
    return 0.2 * tones + 0.1 * hum + 0.02 * noise.standard_normal(len(tones))


@pytest.fixture(scope="session")
def labelled_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled set that a child could learn: four speakers to train on, two others, 216 clips, three minutes."""
    folder, noise = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    clips: list[dict[str, Any]] = []

    def add(phones: str, speaker: int, split: str, keyword: str | None = None) -> None:
        samples = sound(phones, speaker, noise)
        name = f"{len(clips):03d}.wav"
        soundfile.write(folder / name, samples, RATE)
        entry = {"file": name, "split": split, "speaker": f"s{speaker}", "phonemes": " ".join(phones)}
        clips.append(entry | ({"keyword": keyword} if keyword else {}))

    for speaker in range(6):
        for _ in range(24):
            # No phone follows itself: a layer that reads single frames hears the two as one.
            sentence = "ab"
            while any(one == other for one, other in pairwise(sentence)) or len(sentence) < 8:
                sentence = "".join(noise.choice(list(PHONES), size=8))
            split = "unseen" if speaker > 3 else "seen" if len(clips) % 3 == 0 else "train"
            add(sentence, speaker, split)
        for keyword in KEYWORDS * 3:
            add(keyword, speaker, "unseen" if speaker > 3 else "train", keyword)
    (folder / "manifest.json").write_text(json.dumps({"format": "l0prune-labelled-speech", "clips": clips}))
    return folder


@pytest.fixture
def changed_set(labelled_sound: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the labelled set whose manifest a function has changed: changed_set(lambda clips: clips.pop())."""

    def make(change: Callable[[list[dict[str, Any]]], object] = lambda _clips: None) -> Path:
        folder = tmp_path / "changed"
        folder.mkdir()
        for file in labelled_sound.glob("*.wav"):
            (folder / file.name).symlink_to(file)
        content = json.loads((labelled_sound / "manifest.json").read_text())
        change(content["clips"])
        (folder / "manifest.json").write_text(json.dumps(content))
        return folder

    return make
