"""One pass of the teacher over some audio, from which units and clusters of layers are found."""

from collections.abc import Iterable

import torch
from torch import Tensor

from l0prune import TrainingError
from l0prune.distributed import from_main
from l0prune.support import random_state_kept
from l0prune_speech.distillation.layer_clusters import LayerClusters
from l0prune_speech.distillation.teacher_units import TeacherUnits
from l0prune_speech.encoder import SpeechEncoder


def find_structure(
    teacher: SpeechEncoder,
    batches: Iterable[Tensor],
    *,
    units: TeacherUnits | None = None,
    clusters: LayerClusters | None = None,
) -> None:
    """Find what is not known yet; the same in every process. Random generators are afterwards what they were before.

    Args:
        teacher: In evaluation mode.
        batches: Waveforms (clips, samples), an end to them.
        units: To be found, if any.
        clusters: To be found, if any.

    Raises:
        DataError: There are too few frames.
        TrainingError: The teacher's states are not finite.
    """
    layers = (max(units.layers) if units is not None else 0) if clusters is None else None
    like = next(teacher.parameters())
    with random_state_kept(), torch.inference_mode(), torch.autocast(like.device.type, enabled=False):
        for batch in batches:
            states = teacher.hidden_states(batch.to(like), layers)
            if not bool(torch.isfinite(states[-1]).all()):
                raise TrainingError("the teacher's hidden states are not finite", where="speech.teacher")
            if units is not None:
                units.add([states[layer] for layer in units.layers])
            if clusters is not None:
                clusters.add(states)
    with random_state_kept(), torch.no_grad():
        if units is not None:
            units.find()
            from_main(units.centroids)
        if clusters is not None:
            clusters.find()
            from_main(clusters.members)
