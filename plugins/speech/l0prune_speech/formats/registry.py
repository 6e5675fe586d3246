"""The formats that speech encoders are exported to, in words."""

from collections.abc import Mapping

from l0prune import ExportFormat

FORMATS: Mapping[str, ExportFormat] = {
    "huggingface": ExportFormat(
        holds="a folder for transformers: dense encoders for its own classes, pruned ones with their class beside them",
    ),
    "dphubert": ExportFormat(
        holds="DPHuBERT's checkpoint; a first WavLM layer without attention gets one head that adds nothing",
        suffix=".pth",
    ),
    "diarizen": ExportFormat(holds="DiariZen's checkpoint; otherwise as dphubert", suffix=".bin"),
    "onnx": ExportFormat(
        holds="an ONNX model; any batch and length, float32, at most 530 million parameters (2 GB)", suffix=".onnx"
    ),
    "torchscript": ExportFormat(holds="a TorchScript program for Python and C++; any batch and length", suffix=".pt"),
    "torch.export": ExportFormat(
        holds="a torch.export program; any batch, any length from two frames (45 ms) on", suffix=".pt2"
    ),
    "s3prl": ExportFormat(holds="a folder that is an s3prl upstream, for SUPERB; needs torch and torchaudio alone"),
}
"""By name."""
