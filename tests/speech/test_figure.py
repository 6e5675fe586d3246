"""The architecture's picture: one panel a kind of unit, every layer's kept count on it."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from l0prune_speech.figure import draw_architecture
from l0prune_speech.groups import UNITS, encoder_groups
from l0prune_speech.modules import SpeechEncoder
from matplotlib.axes import Axes

from l0prune import GatedModel


@pytest.mark.parametrize("units", [("ffn",), ("conv", "head", "ffn"), UNITS])
def test_panels_and_counts(
    make_encoder: Callable[..., SpeechEncoder], units: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    label = Axes.bar_label

    def note(self: Axes, bars, **settings: object) -> object:
        written.extend(int(bar.get_height()) for bar in bars)
        return label(self, bars, **settings)

    monkeypatch.setattr(Axes, "bar_label", note)
    encoder = make_encoder()
    plan = GatedModel(encoder, encoder_groups(encoder, units), target_sparsity=0.3).plan()
    draw_architecture(plan, tmp_path / "architecture.png")
    content = (tmp_path / "architecture.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">I", content[16:20])[0] == round(4.2 * len(units) * 150)
    assert sorted(written) == sorted(plan.kept_counts.values())
