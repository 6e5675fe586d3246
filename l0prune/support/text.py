"""Numbers and names as people read them."""

from collections.abc import Iterable


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


def listed(names: Iterable[str], most: int = 5) -> str:
    """Some names, and how many more there are: a, b and 3 more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def counted(number: int, thing: str) -> str:
    """A number of things: 1 thread, 2 threads."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
