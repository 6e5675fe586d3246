"""An s3prl upstream of one encoder. The folder stands alone; it needs torch and torchaudio (2.0 or later).

Copy the files into `s3prl/upstream/example/`, where s3prl looks for upstreams of one's own, and name it with
`-u l0prune_student` (`-k` for the model.pt of another folder); or load it anywhere with
`torch.hub.load(FOLDER, "l0prune_student", source="local")`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

try:
    from .encoder import build_encoder  # type: ignore[import-not-found]
except ImportError:
    from encoder import build_encoder  # type: ignore[import-not-found, no-redef]


class UpstreamExpert(nn.Module):
    """Hidden states of the encoder: the projected CNN output, then each transformer layer's.

    Args:
        ckpt: The checkpoint.
        model_config: Not used; the checkpoint holds it.
    """

    def __init__(self, ckpt: str, model_config: str | None = None, **_kwargs: Any) -> None:
        super().__init__()
        content = torch.load(ckpt, map_location="cpu", weights_only=True)
        self.encoder: Any = build_encoder(content["config"])
        self.encoder.encoder.transformer.layer_drop = 0.0
        self.encoder.load_state_dict(self._named(content["state_dict"]))
        self.downsample_rate = 1
        for _channels, _kernel, stride in content["config"]["extractor_conv_layer_config"]:
            self.downsample_rate *= stride
        # s3prl says itself when to train.
        self.eval()

    def _named(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by the names that this version of torchaudio has for a weight-normed convolution."""
        if not any(name.endswith("weight_g") for name in self.encoder.state_dict()):
            return tensors
        new = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        for long, short in new.items():
            tensors = {name.replace(long, short): tensor for name, tensor in tensors.items()}
        return tensors

    def get_downsample_rates(self, key: str = "") -> int:
        """Samples a frame."""
        return self.downsample_rate

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """wavs: a list of (samples,) at 16 kHz -> hidden_states, 1 + L tensors (B, T, D)."""
        lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
        return {"hidden_states": self.encoder.hidden_states(pad_sequence(wavs, batch_first=True), None, lengths)}
