"""A distillation term of one's own: squared where states are near each other, absolute where they are far."""

from l0prune_speech.distillation import Term, register_term
from torch import nn

register_term(
    Term(
        name="smooth_l1",
        distance=nn.functional.smooth_l1_loss,
        source="Fast R-CNN (arXiv 1504.08083), eq. 3",
    )
)
