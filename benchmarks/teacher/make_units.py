"""Bring and make the speech that the embedded teacher is pre-trained on, and cluster Whisper's layers into its units.

    python benchmarks/teacher/make_speech.py corpus --out /tmp/l0prune-corpus
    python benchmarks/teacher/make_units.py --corpus /tmp/l0prune-corpus --out /tmp/l0prune-units.safetensors

Real speech: the prompts of five languages of `real_material/speech.py`, 131 minutes, one speaker a language.
Synthetic speech: 160 voices of `make_speech.py`, 153 minutes. Units: `l0bench/teacher/whisper_units.py`.
"""

import argparse
import json
import sys
from pathlib import Path

import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from l0bench.real_material.speech import LANGUAGES, prompts
from l0bench.real_material.whisper_tiny import whisper_tiny
from l0bench.recognition.recogniser import Recogniser
from l0bench.teacher.corpus import FRAME, SAMPLE_RATE, Clip, save_clips
from l0bench.teacher.whisper_units import LAYERS, cluster, layer_states

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by `make_speech.py corpus`")
    parser.add_argument("--material", type=Path, default=ROOT / "runs/material", help="where real material is kept")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    arguments = parser.parse_args()
    clips, speakers = [], []
    for language in LANGUAGES:
        for prompt in prompts(language, arguments.material):
            if prompt.seconds > 0.5:
                clips.append(prompt.samples)
                speakers.append(language)
    for entry in json.loads((arguments.corpus / "manifest.json").read_text(encoding="utf-8")):
        clips.append(soundfile.read(arguments.corpus / entry["file"], dtype="int16")[0])
        speakers.append(json.dumps(entry["voice"], sort_keys=True))
    print(f"{len(clips)} clips, {sum(map(len, clips)) / SAMPLE_RATE / 60:.1f} minutes", flush=True)
    states = layer_states(Recogniser.open(whisper_tiny(arguments.material)), clips)
    units = {name: cluster(states[name], classes) for name, (_, classes) in LAYERS.items()}
    whole = [
        Clip(samples=torch.from_numpy(c), speaker=s, units={name: u[i][: len(c) // FRAME] for name, u in units.items()})
        for i, (c, s) in enumerate(zip(clips, speakers, strict=True))
    ]
    about = {"sources": {name: {"layer": layer, "classes": classes} for name, (layer, classes) in LAYERS.items()}}
    save_clips(whole, arguments.out, about)
    print(arguments.out)


if __name__ == "__main__":
    main()
