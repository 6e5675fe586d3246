"""Draw `overview.png`, the picture of the README: a dense network, the same with gates, and what is left of it.

python docs/pictures/make_overview.py

The network is an example: four layers, whose units are dots. The gate values are made up, but each stage follows from
the one before: a unit whose gate ends at 0 is the one that is cut, with all of its connections, and parameters are
counted from the connections that are drawn.
"""

from io import BytesIO
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

WIDTHS = (3, 6, 6, 3)
GATES = (
    (1.0, 1.0, 1.0),
    (1.0, 0.0, 0.7, 0.0, 0.9, 0.0),
    (0.0, 0.8, 0.0, 1.0, 0.0, 0.0),
    (1.0, 1.0, 1.0),
)
"""By layer and unit; inputs and outputs have none and stay."""
INK, OPEN, CLOSED, FAINT = "#24292f", "#0969da", "#b6bec8", "#e4e8ec"


def heights(count: int) -> np.ndarray:
    """Heights of the `count` units of a layer, centred on 0."""
    return np.arange(count)[::-1] - (count - 1) / 2


def connections(kept: list[list[int]]) -> int:
    """Weights between the units that are kept."""
    return sum(len(a) * len(b) for a, b in pairwise(kept))


def draw(axes: Axes, title: str, caption: str, *, stage: str) -> int:
    """One stage of three: "dense", "gated" or "cut"; returns the number of weights."""
    cut = stage == "cut"
    kept = [[n for n, gate in enumerate(layer) if gate > 0 or not cut] for layer in GATES]
    places = [heights(len(units)) if cut else heights(WIDTHS[i]) for i, units in enumerate(kept)]
    for i in range(len(WIDTHS) - 1):
        for m, a in enumerate(kept[i]):
            for n, b in enumerate(kept[i + 1]):
                open_ = stage == "dense" or min(GATES[i][a], GATES[i + 1][b]) > 0
                axes.plot(
                    (i, i + 1),
                    (places[i][m], places[i + 1][n]),
                    color=INK if open_ else FAINT,
                    linewidth=0.9 if open_ else 0.6,
                    alpha=0.55 if open_ else 1.0,
                    zorder=1 if open_ else 0,
                )
    for i, units in enumerate(kept):
        for m, unit in enumerate(units):
            gate = GATES[i][unit]
            hidden = 0 < i < len(WIDTHS) - 1
            colour = OPEN if hidden and (gate > 0 or stage == "dense") else INK
            closed = stage == "gated" and gate == 0
            axes.scatter(i, places[i][m], s=190, color="white" if closed else colour, zorder=3)
            axes.scatter(
                i, places[i][m], s=190, facecolor="none", edgecolor=CLOSED if closed else colour, linewidth=2, zorder=4
            )
            if stage == "gated" and hidden:
                _gate(axes, i + 0.19, places[i][m], gate)
    axes.set(xlim=(-0.35, 3.35), ylim=(-4.6, 2.95))
    axes.set_title(title, fontsize=27, fontweight="bold", color=INK, pad=4)
    axes.text(1.5, -3.8, caption, ha="center", va="center", fontsize=21, color=INK, linespacing=1.2)
    axes.axis("off")
    return connections(kept)


def _gate(axes: Axes, x: float, y: float, value: float) -> None:
    """A small bar beside a unit, as full as its gate is open."""
    axes.add_patch(Rectangle((x, y - 0.32), 0.12, 0.64, facecolor="white", edgecolor=CLOSED, linewidth=1, zorder=5))
    axes.add_patch(Rectangle((x, y - 0.32), 0.12, 0.64 * value, facecolor="#d1580b", edgecolor="none", zorder=6))


def main() -> None:
    """Write the picture beside this file."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 5.2), facecolor="white")
    dense = connections([list(range(width)) for width in WIDTHS])
    left = connections([[n for n, gate in enumerate(layer) if gate > 0] for layer in GATES])
    draw(panels[0], "1. Dense", f"your network:\n{dense} weights", stage="dense")
    draw(panels[1], "2. Gated", "gates close until\nthe size fits", stage="gated")
    draw(panels[2], "3. Cut", f"equal outputs:\n{left} weights", stage="cut")
    figure.subplots_adjust(left=0.005, right=0.995, top=0.9, bottom=0.0, wspace=0.03)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=110)
    # A few colours are enough, and make a small file.
    Image.open(drawn).convert("RGB").quantize(64).save(Path(__file__).with_name("overview.png"), optimize=True)


if __name__ == "__main__":
    main()
