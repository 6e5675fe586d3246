"""Make three sets of labelled real speech that `l0prune evaluate` runs probes on.

    python benchmarks/teacher/make_real_labelled.py --out /tmp/l0prune-real
    l0prune evaluate embedded filterbanks --data /tmp/l0prune-real/characters --tasks phone
    l0prune evaluate embedded filterbanks --data /tmp/l0prune-real/languages --tasks keyword
    l0prune evaluate embedded filterbanks --data /tmp/l0prune-real/digits --tasks keyword

The speech is that of `real_material/speech.py`; `l0bench/teacher/real_labels.py` says how it is labelled. The probe
`phone` takes characters as well: they are symbols divided by spaces.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from l0bench.real_material.speech import LANGUAGES, SAMPLE_RATE, prompts
from l0bench.teacher.real_labels import Labelled, characters, digits, languages

from l0prune import assembled

ROOT = Path(__file__).parents[2]


def write(clips: Sequence[Labelled], column: str, folder: Path) -> None:
    """Clips as FLAC beside a table of them."""
    with assembled(folder) as made:
        made.mkdir()
        with (made / "clips.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path", column, "split"])
            for number, clip in enumerate(clips):
                path = f"{number:04d}.flac"
                soundfile.write(made / path, clip.samples, SAMPLE_RATE)
                table.writerow([path, clip.label, clip.split])
    print(f"{folder}: {len(clips)} clips, {sum(clip.split == 'test' for clip in clips)} of them to test")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, default=ROOT / "runs/material", help="where real material is kept")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    found = {language: prompts(language, given.material) for language in LANGUAGES}
    given.out.mkdir(parents=True, exist_ok=True)
    write(characters(found["en"]), "phonemes", given.out / "characters")
    write(languages(found), "label", given.out / "languages")
    write(digits(found), "label", given.out / "digits")


if __name__ == "__main__":
    main()
