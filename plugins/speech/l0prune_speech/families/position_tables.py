"""Tables that a class computes and no checkpoint holds: sines of positions, frequencies of rotations."""

from torch import nn


def position_tables(model: nn.Module) -> tuple[str, ...]:
    """The modules of a model with a buffer that is not saved, by dotted names.

    Their columns feed a linear layer, so they can be removed as its inputs. But from_pretrained computes such a table
    anew, in the width of the settings, and a narrower one would be lost.
    """
    saved = model.state_dict().keys()
    return tuple(name.rpartition(".")[0] for name, _ in model.named_buffers() if name not in saved)
