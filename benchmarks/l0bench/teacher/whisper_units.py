"""Units of speech: clusters of what the layers of Whisper's encoder say of each frame.

Whisper was trained to write down what people say in many voices and rooms, so its layers tell sounds apart where
spectra do not. A lower layer still holds who speaks, the last holds what is said.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn import functional as F

from l0bench.teacher.corpus import FRAME, SAMPLE_RATE

WINDOW = 10 * SAMPLE_RATE
LAYERS = {"layer 2": (2, 100), "layer 4": (4, 250)}
"""Of each source: the layer of Whisper tiny's encoder (0 is its input, 4 the last) and the number of clusters."""


@torch.no_grad()
def layer_states(recogniser: Any, clips: Sequence[np.ndarray], batch: int = 8) -> dict[str, list[Tensor]]:
    """Layer-normalised states of each clip's frames.

    Args:
        recogniser: `l0bench.recognition.recogniser.Recogniser`.
        clips: (S,) int16 each; cut into windows of ten seconds.
        batch: Windows a pass.

    Returns:
        Of each source, one (S // 320, D) float16 a clip.
    """
    windows = [(index, first) for index, clip in enumerate(clips) for first in range(0, len(clip), WINDOW)]
    found: dict[str, list[list[Tensor]]] = {name: [[] for _ in clips] for name in LAYERS}
    for begin in range(0, len(windows), batch):
        part = windows[begin : begin + batch]
        sounds = [clips[index][first : first + WINDOW] for index, first in part]
        with torch.autocast("cpu", torch.bfloat16):
            layers = recogniser.encoder(recogniser.features(sounds), output_hidden_states=True).hidden_states
        for name, (layer, _) in LAYERS.items():
            for row, (index, _first) in enumerate(part):
                states = layers[layer][row, : len(sounds[row]) // FRAME].float()
                found[name][index].append(F.layer_norm(states, states.shape[-1:]).half())
    return {name: [torch.cat(parts) for parts in of_clips] for name, of_clips in found.items()}


def cluster(states: Sequence[Tensor], classes: int, seed: int = 0) -> list[Tensor]:
    """k-means of standardised states, fitted on at most 120,000 frames. One (T,) int16 a clip."""
    stacked = torch.cat(list(states))
    chosen = torch.randperm(len(stacked), generator=torch.Generator().manual_seed(seed))[:120_000]
    sample = stacked[chosen].float()
    mean, deviation = sample.mean(0), sample.std(0) + 1e-5
    kmeans = MiniBatchKMeans(classes, batch_size=10_000, n_init=3, random_state=seed)
    kmeans.fit(((sample - mean) / deviation).numpy())
    return [torch.from_numpy(kmeans.predict(((s.float() - mean) / deviation).numpy())).short() for s in states]
