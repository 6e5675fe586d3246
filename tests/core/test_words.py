"""The core knows nothing of speech: a plugin says what its data are counted in, and what its units are called."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEECH = re.compile(r"\b(audio|speech|waveforms?|torchaudio|hubert|wavlm|phonemes?|speakers?)\b", re.IGNORECASE)


def test_the_core_has_no_words_of_speech() -> None:
    found = {
        f"{file.relative_to(ROOT)}:{number}": line.strip()
        for kind in ("py", "html", "css")
        for file in (ROOT / "l0prune").rglob(f"*.{kind}")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if SPEECH.search(line)
    }
    assert found == {}
