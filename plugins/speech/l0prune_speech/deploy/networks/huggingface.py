"""Hugging Face directories: the network as narrow as it is, or padded with zeros to its stock class."""

from pathlib import Path

from l0prune_speech.deploy.networks.clips import ends, largest_difference
from l0prune_speech.deploy.networks.registry import NetworkForm, register_form
from l0prune_speech.families import SpeechNetwork, open_directory, padded


def _narrow(network: SpeechNetwork, folder: Path) -> tuple[str, ...]:
    return network.export(network.model, folder)


def _padded(network: SpeechNetwork, folder: Path) -> tuple[str, ...]:
    model = padded(network, network.model)
    notes = network.export(model, folder)
    before, after = (sum(p.numel() for p in each.parameters()) for each in (network.model, model))
    return (*notes, f"padded with zeros from {before:,} to {after:,} parameters")


def _compare(network: SpeechNetwork, folder: Path) -> float:
    model = open_directory(folder)
    return largest_difference(
        network, lambda *given: network.hear(model, *given), lambda heard: [*heard.states, *ends(heard)]
    )


register_form(
    NetworkForm(
        name="huggingface",
        holds="a folder for transformers: the stock class where it can hold the widths, else with a few lines of code",
        write=_narrow,
        compare=_compare,
        opened_by="transformers",
    )
)
register_form(
    NetworkForm(
        name="huggingface-padded",
        holds="a folder for transformers of the stock class, its layers padded with zeros to widths that it can hold",
        write=_padded,
        compare=_compare,
        opened_by="transformers",
    )
)
