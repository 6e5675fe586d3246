"""Make the embedded speech, or the larger corpus the embedded teacher is pre-trained on, with espeak-ng.

    python benchmarks/teacher/make_speech.py clips  --out plugins/speech/l0prune_speech/assets/speech
    python benchmarks/teacher/make_speech.py corpus --out /tmp/l0prune-corpus

Every clip is one sentence of `l0bench/teacher/sentences.py` by one voice: a language accent, a variant, a pitch and a
speed. A `manifest.json` beside the clips records text and voice. Needs Debian's `espeak-ng`.
"""

import argparse
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from l0bench.teacher.sentences import sentence
from l0bench.teacher.voices import SAMPLE_RATE, Voice, make_voices, speak


def synthesise(text: str, voice: Voice, seed: int) -> np.ndarray:
    """Speak `text`: float32 samples at 16 kHz, peak 0.2 to 0.9, over a faint noise floor 35 to 55 dB down."""
    waveform = speak(text, voice)
    generator = np.random.default_rng(seed)
    rms = float(np.sqrt(np.mean(waveform**2)) + 1e-9)
    waveform = waveform + generator.standard_normal(len(waveform)) * rms * 10 ** (-generator.uniform(35, 55) / 20)
    return (waveform / np.abs(waveform).max() * generator.uniform(0.2, 0.9)).astype(np.float32)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["clips", "corpus"])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # The embedded clips are other sentences by other voices than the teacher's corpus (another seed).
    seed, voices, minutes, suffix = {"clips": (7, 32, 8.0, ".ogg"), "corpus": (1, 160, 150.0, ".flac")}[arguments.what]
    rng = random.Random(seed)
    speakers = make_voices(voices, rng)
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = ((index, sentence(rng), speakers[index % voices]) for index in range(10**6))
    manifest, seconds = [], 0.0
    with ThreadPoolExecutor(2) as pool:
        while seconds < minutes * 60:
            batch = [next(jobs) for _ in range(64 if arguments.what == "corpus" else 8)]
            waves = pool.map(lambda job: synthesise(job[1], job[2], seed * 10**6 + job[0]), batch)
            for (index, text, voice), samples in zip(batch, waves, strict=True):
                if len(samples) < 2 * SAMPLE_RATE:
                    continue
                name = f"{index:05d}{suffix}"
                soundfile.write(arguments.out / name, samples, SAMPLE_RATE)
                seconds += len(samples) / SAMPLE_RATE
                duration = round(len(samples) / SAMPLE_RATE, 3)
                manifest.append({"file": name, "duration_seconds": duration, "text": text, "voice": asdict(voice)})
    (arguments.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"{len(manifest)} clips, {seconds / 60:.1f} minutes, {voices} voices in {arguments.out}")


if __name__ == "__main__":
    main()
