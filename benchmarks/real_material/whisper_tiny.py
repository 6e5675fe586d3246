"""Bring Whisper tiny.en; `l0bench/real_material/whisper_tiny.py` says from where."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from l0bench.real_material.whisper_tiny import main

if __name__ == "__main__":
    sys.exit(main())
