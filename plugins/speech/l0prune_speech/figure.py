"""The pruned architecture as a picture, after the paper's Figure 2: what each layer keeps."""

from pathlib import Path

from l0prune import RemovalPlan

_PANELS = {
    "conv": ("Convolution channels", "convolution"),
    "head": ("Attention heads", "transformer layer"),
    "ffn": ("FFN units", "transformer layer"),
    "attention": ("Attention blocks", "transformer layer"),
    "feed_forward": ("FFN blocks", "transformer layer"),
}
_KEPT, _REMOVED = "#2b6cb0", "#e2e8f0"


def draw_architecture(plan: RemovalPlan, path: Path) -> None:
    """Draw kept and removed units of each layer, one panel a kind of unit.

    Args:
        plan: The removal plan of a speech encoder.
        path: A PNG file to write.
    """
    from matplotlib.figure import Figure

    kinds = [kind for kind in _PANELS if any(group.kind == kind for group in plan.groups)]
    figure = Figure(figsize=(4.2 * len(kinds), 3.2), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        groups = [group for group in plan.groups if group.kind == kind]
        kept = [plan.kept_counts[group.name] for group in groups]
        numbers = [_layer(group.name) for group in groups]
        axes.bar(numbers, [group.units for group in groups], color=_REMOVED, label="dense")
        bars = axes.bar(numbers, kept, color=_KEPT, label="kept")
        axes.bar_label(bars, fontsize=7, padding=1)
        title, axis = _PANELS[kind]
        total = sum(group.units for group in groups)
        axes.set_title(f"{title}: {sum(kept):,} of {total:,}", fontsize=10)
        axes.set_xlabel(axis, fontsize=9)
        if len(groups) <= 12:
            axes.set_xticks(numbers)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1.12 * max(group.units for group in groups))
    figure.savefig(path, dpi=150, format="png")


def _layer(group: str) -> int:
    """The number of a group's layer, from 1 on, by its name: where a block is absent others keep their numbers."""
    return next(int(piece) for piece in group.split(".") if piece.isdigit()) + 1
