"""benchmarks/recognition/prompt_sets.py: what is held out, and how clips are joined to windows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from l0bench.real_material.speech import SAMPLE_RATE, Prompt
from l0bench.recognition.prompt_sets import SECONDS, TESTED, VALIDATED, Window, joined, split
from l0bench.recognition.scoring import words

LENGTHS = st.lists(st.integers(1, SECONDS * SAMPLE_RATE), min_size=1, max_size=12)


def clips_of(lengths: list[int]) -> list[Window]:
    # Each clip is a number of its own, never 0, so that it is found again in the windows.
    return [
        Window(name=f"{i}", samples=np.full(length, i + 1, dtype=np.int16), text=f"clip {i}")
        for i, length in enumerate(lengths)
    ]


@given(LENGTHS, st.integers(1, 8), st.integers(0, 3))
def test_windows_hold_whole_clips_in_the_order_of_their_transcripts(lengths: list[int], count: int, seed: int) -> None:
    clips = clips_of(lengths)
    windows = joined(clips, count, seed=seed)
    assert len(windows) == count
    for window in windows:
        names = [int(name) for name in window.name.split("+")]
        assert 0 < len(window.samples) <= SECONDS * SAMPLE_RATE
        assert window.text == " ".join(clips[i].text for i in names)
        heard = [value for value in window.samples.tolist() if value]
        assert heard == [i + 1 for i in names for _ in range(lengths[i])]


def test_windows_repeat_by_their_seed() -> None:
    clips = clips_of([SAMPLE_RATE * i for i in range(1, 9)])
    names = [[window.name for window in joined(clips, 6, seed=seed)] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_every_clip_is_heard_once_before_any_is_heard_again() -> None:
    clips = clips_of([3 * SAMPLE_RATE] * 9)
    heard = "+".join(window.name for window in joined(clips, 3)).split("+")
    assert sorted(heard) == sorted(clip.name for clip in clips)


def made_prompts() -> list[Prompt]:
    generator, prompts = np.random.default_rng(0), []
    for i in range(400):
        count = int(generator.integers(1, 30))
        text = " ".join(f"w{generator.integers(50)}" for _ in range(count))
        prompts.append(Prompt(name=f"p{i:03d}", samples=np.ones(SAMPLE_RATE, dtype=np.int16), transcript=text))
        if i % 7 == 0:
            prompts.append(
                Prompt(name=f"again{i:03d}", samples=np.ones(SAMPLE_RATE, dtype=np.int16), transcript=text + "!")
            )
    long = np.ones((SECONDS + 1) * SAMPLE_RATE, dtype=np.int16)
    return [
        *prompts,
        Prompt(name="long", samples=long, transcript="far too long a prompt"),
        Prompt(name="mute", samples=long[:9], transcript=""),
    ]


def test_no_transcript_is_in_two_sets_and_held_out_ones_have_4_to_25_words() -> None:
    found = split(made_prompts())
    said = {name: {tuple(words(w.text)) for w in getattr(found, name)} for name in ("test", "validation", "train")}
    assert (
        (len(found.test), len(found.validation)) == (TESTED, VALIDATED) == (len(said["test"]), len(said["validation"]))
    )
    assert all(4 <= len(text) <= 25 for text in said["test"] | said["validation"])
    assert not said["test"] & said["validation"]
    assert not (said["test"] | said["validation"]) & said["train"]
    assert {"long", "mute"}.isdisjoint(window.name for window in found.train)


def test_the_split_is_always_the_same() -> None:
    one, other = split(made_prompts()), split(made_prompts())
    assert [w.name for w in one.test] == [w.name for w in other.test]
