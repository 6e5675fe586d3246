"""Networks with a class of their own as their users know them: written, opened again, compared, put in place."""

from pathlib import Path

import torch

from l0prune import ConfigError, Export, ProofError, assembled, relative_difference
from l0prune_speech.families import observation_of, open_directory, open_network

_TOLERANCE = 1e-5
_SECONDS = 1.3


def export_own(source: str, to: str, out: Path) -> Export:
    """Write a network of a class of its own as a Hugging Face directory.

    Args:
        source: A run directory, or a checkpoint.
        to: "huggingface".
        out: The folder to make.

    Raises:
        ConfigError: There is no such form of it.
        ProofError: What was written does not behave as the network does; nothing is left of it.
    """
    if to != "huggingface":
        hint = "--to huggingface; torch.onnx and torch.export take l0prune.load(RUN)"
        raise ConfigError(f"{to} cannot hold a network with a class of its own", where=source, hint=hint)
    network = open_network(source)
    observe = observation_of(network, _SECONDS, clips=2, seed=1)
    with assembled(out) as place, torch.no_grad():
        place.mkdir()
        notes = network.export(network.model, place)
        difference = relative_difference(observe(network.model), observe(open_directory(place)))
        if not difference <= _TOLERANCE:
            got, expected = f"a relative difference of {difference:.1e}", f"at most {_TOLERANCE}"
            raise ProofError("the export does not behave as the network", where=source, got=got, expected=expected)
    return Export(
        source=source,
        format=to,
        path=str(out),
        parameters=sum(parameter.numel() for parameter in network.model.parameters()),
        max_relative_difference=difference,
        notes=(*network.notes, *notes),
    )
