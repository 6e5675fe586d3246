"""The architecture's picture: one panel a kind of unit, every layer's kept count on it."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from l0prune_speech.encoder.groups import UNITS, encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.figure import draw_architecture
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


def test_where_a_block_is_absent_other_layers_keep_their_numbers(
    make_encoder: Callable[..., SpeechEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    bar = Axes.bar

    def note(self: Axes, numbers, *heights: object, **settings: object) -> object:
        drawn.append([*numbers])
        return bar(self, numbers, *heights, **settings)

    monkeypatch.setattr(Axes, "bar", note)
    encoder = make_encoder()
    groups = [
        group for group in encoder_groups(encoder) if group.name != "encoder.transformer.layers.1.attention.heads"
    ]
    plan = GatedModel(encoder, groups, target_sparsity=0.3).plan()
    draw_architecture(plan, tmp_path / "architecture.png")
    convolutions, layers = len(encoder.feature_extractor.conv_layers), len(encoder.encoder.transformer.layers)
    expected = [[*range(1, 1 + convolutions)], [1, *range(3, 1 + layers)], [*range(1, 1 + layers)]]
    assert drawn[::2] == drawn[1::2] == expected
