"""Discrete units: k-means of the frames of a teacher's layers, found once; and the heads that predict them.

Source: HuBERT (arXiv 2106.07447), sections II and III; DiceHuBERT (arXiv 2507.02911) for units of the teacher.

Legend: B clips, T frames, E teacher width, D student width, U layers, K units of each, P width of unit embeddings.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import ConfigError, DataError, RunError

FRAMES_A_UNIT = 10
"""As few frames a unit as k-means is asked to be content with."""
_CHUNK_FRAMES = 10_000
"""Frames that a step of k-means is taken from."""
_STEP_FRAMES = 2048
_ROUNDS = 5
"""How often each frame is shown to k-means."""
_EMBEDDING_WIDTH = 256
_TEMPERATURE = 0.1


class TeacherUnits(nn.Module):
    """The units of some layers; kept in checkpoints, so that a resumed run has the same.

    Args:
        layers: U layers of the teacher.
        count: K.
        width: E.
    """

    centroids: Tensor
    known_mark: Tensor

    def __init__(self, layers: Sequence[int], count: int, width: int) -> None:
        super().__init__()
        self.layers, self.count = tuple(layers), count
        self.register_buffer("centroids", torch.zeros(len(self.layers), count, width))
        self.register_buffer("known_mark", torch.tensor(False))
        self._known = False
        self._means: list[Any] = []
        self._waiting: list[list[Tensor]] = [[] for _ in self.layers]
        self._frames = 0

    @property
    def known(self) -> bool:
        """Whether they have been found."""
        if not self._known:
            self._known = bool(self.known_mark)
        return self._known

    @torch.no_grad()
    def labels(self, state: Tensor, number: int) -> Tensor:
        """The nearest centroid of each frame: (B, T, E) of layer `self.layers[number]` -> (B, T)."""
        with torch.autocast(state.device.type, enabled=False):
            centroids = self.centroids[number]
            # Squared distances without what is alike for all centroids.
            return (centroids.square().sum(-1) - 2 * state.to(centroids) @ centroids.T).argmin(-1)

    def add(self, states: Sequence[Tensor]) -> None:
        """Show k-means a batch. states: (B, T, E) of each of the layers."""
        for waiting, state in zip(self._waiting, states, strict=True):
            waiting.append(state.float().flatten(0, -2).cpu())
        self._frames += self._waiting[0][-1].shape[0]
        if sum(len(part) for part in self._waiting[0]) >= self._chunk:
            self._step()

    def find(self) -> None:
        """Take the centroids from what was shown.

        Raises:
            DataError: There were too few frames.
        """
        check_frames(self._frames, self.count)
        # The rest is a chunk of its own, but where it is too small to be one.
        if sum(len(part) for part in self._waiting[0]) >= self.count * FRAMES_A_UNIT or not self._means:
            self._step()
        for number, means in enumerate(self._means):
            self.centroids[number].copy_(torch.from_numpy(means.cluster_centers_))
        self.known_mark.fill_(True)
        self._means, self._waiting = [], [[] for _ in self.layers]

    @property
    def _chunk(self) -> int:
        return max(_CHUNK_FRAMES, FRAMES_A_UNIT * self.count)

    def _step(self) -> None:
        from sklearn.cluster import MiniBatchKMeans

        if not self._means:
            self._means = [
                MiniBatchKMeans(self.count, random_state=number, n_init="auto", batch_size=_STEP_FRAMES)
                for number in range(len(self.layers))
            ]
        for number, (means, waiting) in enumerate(zip(self._means, self._waiting, strict=True)):
            frames = torch.cat(waiting).numpy()
            orders = torch.Generator().manual_seed(number)
            for turn in range(_ROUNDS):
                order = torch.randperm(len(frames), generator=orders).numpy()
                if turn == 0 and not hasattr(means, "cluster_centers_"):
                    # The first step chooses the centroids to begin with: from all that there is.
                    means.partial_fit(frames[order])
                for begin in range(0, len(order), _STEP_FRAMES):
                    means.partial_fit(frames[order[begin : begin + _STEP_FRAMES]])
        self._waiting = [[] for _ in self.layers]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        given = state_dict.get(f"{prefix}centroids")
        if given is not None and (given.shape != self.centroids.shape or not bool(torch.isfinite(given).all())):
            layers, count, width = self.centroids.shape
            got = " x ".join(map(str, given.shape)) if given.shape != self.centroids.shape else "values not finite"
            raise RunError(
                "the saved units contradict the run",
                where="speech.terms",
                got=got,
                expected=f"{layers} x {count} x {width}",
                hint="resume with the settings that the run began with, or choose another --out",
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._known = False


class UnitHead(nn.Module):
    """Logits of units: the cosines of a projected state with an embedding of each unit, divided by 0.1.

    Source: HuBERT (arXiv 2106.07447), eq. 3.

    Args:
        width: D.
        count: K.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        inner = min(_EMBEDDING_WIDTH, width)
        self.projection = nn.Linear(width, inner)
        self.embeddings = nn.Parameter(torch.empty(count, inner).uniform_(-1, 1))

    def forward(self, state: Tensor) -> Tensor:
        """(..., D) -> (..., K)."""
        state = nn.functional.normalize(self.projection(state), dim=-1)
        return state @ nn.functional.normalize(self.embeddings, dim=-1).T / _TEMPERATURE


def check_frames(frames: int, count: int) -> None:
    """Check that frames are enough for k-means.

    Raises:
        DataError: They are not.
    """
    if frames < FRAMES_A_UNIT * count:
        raise DataError(
            "too few frames for the units",
            where="speech.unit_count",
            got=f"{frames} frames for {count} units",
            expected=f"{FRAMES_A_UNIT * count} or more",
            hint=f"lower speech.unit_count to {frames // FRAMES_A_UNIT}, or give more audio"
            if frames >= 2 * FRAMES_A_UNIT
            else "give more audio",
        )


def check_library() -> None:
    """Check that the library of k-means and of clusterings is there.

    Raises:
        ConfigError: It is not.
    """
    try:
        import sklearn.cluster
    except ImportError as error:
        hint = "pip install 'l0prune[units]'"
        raise ConfigError("units and clusters of layers need scikit-learn", got=error, hint=hint) from error
    del sklearn
