"""Bring real speech with its transcripts; `l0bench/real_material/speech.py` says from where."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from l0bench.real_material.speech import main

if __name__ == "__main__":
    sys.exit(main())
