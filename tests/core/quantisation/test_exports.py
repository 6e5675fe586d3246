"""Any network in int8: what is stored, how near it stays, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import l0prune
from l0prune import ConfigError, ProofError, RunError
from l0prune.measuring import quantized
from l0prune.proof import decibels, relative_noise
from l0prune.quantisation import has_int8_instructions, int8_words, is_int8
from l0prune.support import check_stamp

X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
    ).eval()


def batches(scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [scale * torch.randn(8, 1, 8, 8, generator=generator) for _ in range(4)]


def given(to: str) -> dict[str, Any]:
    return {} if to.endswith("dynamic") else {"calibration": batches()}


@pytest.mark.parametrize("to", ["onnx-int8", "onnx-int8-dynamic"])
def test_a_file_in_int8_is_near_the_network_and_a_quarter_of_its_size(to: str, tmp_path: Path) -> None:
    net = network()
    export = l0prune.export(net, X, to=to, out=tmp_path / "a.onnx", **given(to))
    weights = sum(p.numel() for p in net.parameters())
    assert export.float32_bytes == 4 * weights
    assert export.file_bytes == (tmp_path / "a.onnx").stat().st_size
    assert is_int8(tmp_path / "a.onnx")
    stored = [numpy_helper.to_array(value) for value in onnx.load(tmp_path / "a.onnx").graph.initializer]
    # All but biases, scales and norms.
    assert sum(array.nbytes for array in stored if array.dtype == np.int8) >= 0.95 * weights
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    with torch.no_grad():
        noise = relative_noise(net(X), torch.from_numpy(session.run(None, {"input": X.numpy()})[0]))
    assert export.signal_to_noise_db is not None
    assert 20 < export.signal_to_noise_db <= decibels(noise) + 1e-3
    # Standard operators alone.
    assert {node.domain for node in onnx.load(tmp_path / "a.onnx").graph.node} <= {"", "ai.onnx"}


def test_each_channel_has_a_scale_of_its_own(tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        # One scale for all would leave of the other channels nothing.
        net[4].weight[0].mul_(1000)  # type: ignore[operator]
    for to in ("onnx-int8", "onnx-int8-dynamic"):
        l0prune.export(net, X, to=to, out=tmp_path / f"{to}.onnx", **given(to))
        got = onnxruntime.InferenceSession(str(tmp_path / f"{to}.onnx")).run(None, {"input": X.numpy()})[0]
        with torch.no_grad():
            expected = net(X)
        assert decibels(relative_noise(expected[:, 1:], torch.from_numpy(got[:, 1:]))) > 20


def test_any_number_of_samples_and_a_checksum(tmp_path: Path) -> None:
    net = network()
    place = tmp_path / "a.onnx"
    l0prune.export(net, X, to="onnx-int8", out=place, calibration=batches())
    assert check_stamp(place)
    assert l0prune.verify(place).broken is None
    session = onnxruntime.InferenceSession(str(place))
    assert session.run(None, {"input": torch.randn(7, 1, 8, 8).numpy()})[0].shape == (7, 10)
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(bytes(content))
    broken = l0prune.verify(place).broken
    assert broken is not None
    assert broken.name == "checksum"


class Quiet(nn.Module):
    """Its convolution hears samples of which one is a thousand times louder, and each is normed after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heard = nn.functional.layer_norm(self.conv(x).transpose(1, 2), (8,))
        return self.head(heard)


def test_convolutions_that_would_be_too_noisy_keep_int8_weights_and_compute_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 1, 64)
    x[..., 0] = 1000
    net = Quiet().eval()
    export = l0prune.export(net, x, to="onnx-int8", out=tmp_path / "a.onnx", calibration=[x])
    assert any("convolutions keep int8 weights and compute in float32" in note for note in export.notes)
    assert export.signal_to_noise_db is not None
    assert export.signal_to_noise_db > 20
    graph = onnx.load(tmp_path / "a.onnx").graph
    (conv,) = [node for node in graph.node if node.op_type == "Conv"]
    made = {name: node.op_type for node in graph.node for name in node.output}
    assert [made.get(name) for name in conv.input[:2]] == [None, "DequantizeLinear"]


def test_the_copy_that_bench_measures_is_of_the_same_kind(tmp_path: Path) -> None:
    l0prune.export(network(), X, to="onnx", out=tmp_path / "a.onnx")
    made = quantized(tmp_path / "a.onnx", tmp_path)
    assert is_int8(made)
    assert not is_int8(tmp_path / "a.onnx")
    assert made.stat().st_size < (tmp_path / "a.onnx").stat().st_size


def test_bad_input_gets_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    net = network()

    def refused(error: type[Exception], match: str, to: str, **more: Any) -> None:
        with pytest.raises(error, match=match) as caught:
            l0prune.export(net, X, to=to, out=tmp_path / "a.onnx", **more)
        assert len(str(caught.value).splitlines()) == 1
        assert not list(tmp_path.iterdir())

    refused(ConfigError, "onnx-int8 needs calibration .*onnx-int8-dynamic needs none", "onnx-int8")
    refused(ConfigError, "nothing to calibrate on", "onnx-int8", calibration=[])
    refused(ConfigError, "calibration is one tensor", "onnx-int8", calibration=X)
    refused(ConfigError, "does not run on it: batch 1 of the calibration", "onnx-int8", calibration=[X, X[0, 0]])
    refused(ConfigError, "takes no calibration: onnx .*onnx-int8", "onnx", calibration=batches())
    # Ranges that say nothing of the inputs.
    refused(ProofError, "signal-to-noise ratio of .* dB, expected 10 dB", "onnx-int8", calibration=batches(1e-3))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ConfigError, match=r"need torchao .*pip install 'l0prune\[torchao\]'"):
        l0prune.export(network(), X, to="torch.export-int8", out=tmp_path / "a.pt2", calibration=batches())
    (tmp_path / "b.onnx").touch()
    with pytest.raises(RunError, match="already there"):
        l0prune.export(network(), X, to="onnx-int8-dynamic", out=tmp_path / "b.onnx")


def test_programs_of_torch_in_int8(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    net = network()
    export = l0prune.export(net, X, to="torch.export-int8", out=tmp_path / "a.pt2", calibration=batches())
    assert export.signal_to_noise_db is not None
    assert export.signal_to_noise_db > 20
    program = torch.export.load(tmp_path / "a.pt2")
    tensors = [*program.state_dict.values(), *program.constants.values()]
    sizes = {dtype: sum(t.numel() for t in tensors if t.dtype == dtype) for dtype in (torch.int8, torch.float32)}
    assert sizes[torch.int8] >= 0.95 * sum(p.numel() for p in net.parameters())
    assert sizes[torch.float32] < 0.05 * sizes[torch.int8]
    assert program.module()(torch.randn(7, 1, 8, 8)).shape == (7, 10)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("flags\t: fpu sse avx2 avx512f", False),
        ("flags\t: fpu avx512_vnni", True),
        ("flags\t: fpu avx_vnni", True),
        ("Features\t: fp asimd asimddp", True),
        ("Features\t: fp asimd", False),
        ("nothing of the kind", None),
    ],
)
def test_a_processor_without_int8_instructions_gets_a_word(tmp_path: Path, text: str, has: bool | None) -> None:
    place = tmp_path / "cpuinfo"
    place.write_text(f"processor\t: 0\n{text}\n")
    assert has_int8_instructions(place) is has
    assert (int8_words(place) is not None) is (has is False)


def test_noise_is_a_share_of_the_signal() -> None:
    signal = torch.tensor([3.0, 4.0])
    assert relative_noise(signal, signal) == 0
    assert relative_noise(signal, signal + torch.tensor([0.3, 0.4])) == pytest.approx(0.1, rel=1e-6)
    assert decibels(0.1) == pytest.approx(20)
    assert relative_noise([signal, signal], [signal, 2 * signal]) == pytest.approx(1)
    for other in (signal[:1], torch.tensor([3.0, float("nan")])):
        assert relative_noise(signal, other) == float("inf")
