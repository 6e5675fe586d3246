"""Numbers and names as people read them, in lines and in figures."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

_MOST_LETTERS = 28
_FIRST_LETTERS = 9
"""Of a name that is cut: enough for what stands before a colon."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters, halves of characters, and what is none: XML and UTF-8 refuse them."""


def quantity(number: float) -> str:
    """Three digits or more and a unit: 12.30 M, 1,234.00 G."""
    scale, unit = (1e9, "G") if number >= 1e9 else (1e6, "M") if number >= 1e6 else (1, "")
    return f"{number / scale:,.{2 if scale > 1 else 0}f} {unit}".strip()


def plain(number: float) -> str:
    """Four digits or more, without a power of ten where there need be none: 0.1234, 20,664."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any: 4:05, 1:04:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def score(mean: float, deviation: float | None) -> str:
    """A mean, with its deviation where there is one: 95.3 ± 0.41."""
    return f"{mean:.4g}" + (f" ± {deviation:.2g}" if deviation is not None else "")


def one_line(error: object, most: int = 200) -> str:
    """What an error says, on one line and cut where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) < most else f"{text[:most]}..."


def listed(names: Iterable[str], most: int = 5) -> str:
    """Some names, and how many more there are: a, b and 3 more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def counted(number: int, thing: str) -> str:
    """A number of things: 1 thread, 2 threads."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def shortest_endings(names: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each path that is no other's.

    What stands before a colon in a path's first part, `random:` say, tells what a name means and is kept.

    Args:
        names: Paths, or names of another kind, each once.
    """
    pieces = {name: _pieces(name) for name in names}
    short: dict[str, str] = {}
    for name, (prefix, parts) in pieces.items():
        for count in range(1, len(parts)):
            ending = (prefix, parts[-count:])
            if [(other, own[-count:]) for other, own in pieces.values()].count(ending) == 1:
                short[name] = prefix + "/".join(ending[1])
                break
        else:
            short[name] = name
    return short


def _pieces(name: str) -> tuple[str, tuple[str, ...]]:
    prefix = re.match(r"(?:[^/:]+:)?", name)
    assert prefix is not None
    return prefix[0], PurePosixPath(name[prefix.end() :]).parts


def printable(text: str, *, keep: str = "") -> str:
    """Text in which a sign stands for each character that cannot be shown.

    Args:
        text: Anything.
        keep: Characters to leave as they are, line ends say.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else "\ufffd", text)


def figure_label(name: str, most_letters: int = _MOST_LETTERS) -> str:
    """A name as a figure has room for it, with the middle left out where it is long."""
    short = name = printable(name)
    if len(short) > most_letters:
        short = f"{name[:_FIRST_LETTERS]}…{name[_FIRST_LETTERS + 1 - most_letters :]}"
    # A legend leaves out what begins with an underscore.
    return f" {short}" if short.startswith("_") else short


def figure_labels(names: Sequence[str], most_letters: int = _MOST_LETTERS) -> list[str]:
    """Names as a figure has room for them; what would be alike once it is cut gets a number."""
    labels, seen = [figure_label(name, most_letters) for name in names], Counter[str]()
    for i, label in enumerate(labels):
        seen[label] += 1
        if seen[label] > 1:
            labels[i] = f"{label} ({seen[label]})"
    return labels
