"""What labels are called where clips are listed, and labels found in a row."""

from collections.abc import Mapping
from typing import Any

COLUMNS = {
    "text": ("text", "transcript", "transcription", "sentence"),
    "label": ("label", "class", "keyword"),
    "speaker": ("speaker", "speaker_id", "client_id"),
}
"""What columns are called, by what they hold."""

Labels = tuple[tuple[str, str], ...]
"""What a label is of ("text", "label" or "speaker"), and the label."""


def labels_in(row: Mapping[str, Any]) -> Labels:
    """The labels of a row whose columns have the usual names.

    Args:
        row: Values by column; anything but text and whole numbers is no label.
    """
    lower = {str(name).lower(): value for name, value in row.items()}
    found = []
    for holds, names in COLUMNS.items():
        values = (lower[name] for name in names if name in lower)
        texts = (str(value).strip() for value in values if isinstance(value, str | int) and not isinstance(value, bool))
        if text := next((text for text in texts if text), ""):
            found.append((holds, text))
    return tuple(found)
