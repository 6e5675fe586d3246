"""Exported folders as networks: what hears, answers and is scored as the network that they were made from.

Legend: B clips, N tokens, T frames, D width.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import DataError, write_json
from l0prune.support import check_sums
from l0prune_speech.deploy.networks.clips import ends, largest_difference
from l0prune_speech.deploy.networks.programs import DECODER, ENCODER, STATES, WHOLE, WITH_PAST, Program
from l0prune_speech.deploy.networks.runners import Runner, runner_for
from l0prune_speech.families import BESIDE, SpeechNetwork, family_named, open_network

_KEY = "l0prune_export"
"""Of config.json: what an exported network was."""


def write_settings(network: SpeechNetwork, folder: Path, programs: Sequence[Program]) -> None:
    """Write what an export's programs cannot say: settings, tokenizer, feature extractor, what the network was."""
    for name, content in network.files.items():
        (folder / name.removeprefix(f"{BESIDE}/")).write_bytes(content)
    architecture = dict(network.architecture)
    config = {**architecture.pop("config"), "architectures": [architecture["class"]]}
    about = {
        "network": network.family,
        **architecture,
        "parameters": network.parameters,
        "programs": {program.name: {"inputs": program.inputs, "outputs": program.outputs} for program in programs},
    }
    write_json(folder / "config.json", {**config, _KEY: about})


def is_export(source: str) -> bool:
    """Whether a source is a folder of exported programs."""
    return _KEY in _stated(Path(source))


def _stated(folder: Path) -> Mapping[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def opened_network(source: str) -> SpeechNetwork:
    """The network of a source: exported programs, or whatever `open_network` takes."""
    return open_export(Path(source)) if is_export(source) else open_network(source)


def open_export(folder: Path, runner: Runner | None = None) -> SpeechNetwork:
    """A network whose model is the programs of a folder.

    Args:
        folder: As `write_settings` and the programs' writers left it.
        runner: What runs the programs; by default that of the files which are there.

    Raises:
        DataError: It is no such folder.
        RunError: A file in it is not what was written.
    """
    check_sums(folder)
    config = dict(_stated(folder))
    about = config.pop(_KEY, None)
    try:
        programs, parameters = about["programs"], int(about["parameters"])
        architecture = {**about, "config": config}
        family = family_named(str(about["network"]), folder / "config.json")
        with torch.device("meta"):
            skeleton = family.build(architecture)
        model = ProgramModel(skeleton, programs, runner or runner_for(folder, programs), parameters)
    except (KeyError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        expected = "what l0prune export wrote"
        raise DataError(
            "not the settings of an export", where=folder / "config.json", got=got, expected=expected
        ) from error
    network = family.around(model, architecture, folder)
    if network.task == "seq2seq":
        model.prefix, model.end = network.head.prefix, network.head.end  # type: ignore[attr-defined]
    return network


def compare_programs(network: SpeechNetwork, folder: Path) -> float:
    """The largest relative difference of the last states and the logits, those of decoders by their cache."""
    opened = open_export(folder)
    return largest_difference(network, lambda *given: opened.hear(opened.model, *given), ends)


class ProgramModel(nn.Module):
    """Programs with the interface of the transformers model that they were made from, as far as heads use it.

    Args:
        skeleton: The dense network on the device "meta": its settings, and how it counts frames.
        programs: Inputs and outputs of each.
        run: What runs them.
        parameters: Of the exported network.
    """

    prefix: tuple[int, ...] = ()
    """Tokens that every transcript begins with."""
    end: int = 0
    """The token at the end."""

    def __init__(
        self, skeleton: Any, programs: Mapping[str, Mapping[str, Sequence[str]]], run: Runner, parameters: int
    ) -> None:
        super().__init__()
        # Not a module of it: there are no weights.
        self._skeleton, self._programs, self._run = (skeleton,), programs, run
        self.stated_parameters = parameters
        self.config = skeleton.config
        if hasattr(skeleton, "generation_config"):
            self.generation_config = skeleton.generation_config

    def modules(self, remove_duplicate: bool = True) -> Iterator[nn.Module]:
        """Its own, and those of the skeleton, which tell how frames are counted."""
        yield from super().modules(remove_duplicate)
        yield from self._skeleton[0].modules(remove_duplicate)

    def forward(self, decoder_input_ids: Tensor | None = None, **given: Any) -> SimpleNamespace:
        """As the model's; a decoder goes from token to token by its cache."""
        if decoder_input_ids is None:
            found = dict(zip(self._programs[WHOLE]["outputs"], self._outputs(WHOLE, given), strict=True))
            return SimpleNamespace(hidden_states=(found[STATES],), logits=found.get("logits"))
        (states,) = self._outputs(ENCODER, given)
        begin = max(len(self.prefix), 1)
        logits, past = self._first(decoder_input_ids[:, :begin], states)
        parts = [logits]
        for place in range(begin, decoder_input_ids.shape[1]):
            logits, past = self._next(decoder_input_ids[:, place : place + 1], past)
            parts.append(logits)
        return SimpleNamespace(encoder_hidden_states=(states,), logits=torch.cat(parts, dim=1))

    def _outputs(self, program: str, given: Mapping[str, Any]) -> Sequence[Tensor]:
        return self._run(program, [given[name] for name in self._programs[program]["inputs"]])

    def _first(self, tokens: Tensor, states: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, N, V), and keys and values by the names of the next program's inputs."""
        found = self._run(DECODER, [tokens, states])
        return found[0], self._past(DECODER, found)

    def _next(self, token: Tensor, past: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        names = self._programs[WITH_PAST]["inputs"]
        found = self._run(WITH_PAST, [token, *(past[name] for name in names[1:])])
        return found[0], {**past, **self._past(WITH_PAST, found)}

    def _past(self, program: str, found: Sequence[Tensor]) -> dict[str, Tensor]:
        names = self._programs[program]["outputs"]
        pairs = zip(names[1:], found[1:], strict=True)
        return {name.replace("present", "past_key_values"): tensor for name, tensor in pairs}

    @torch.no_grad()
    def generate(self, *, max_new_tokens: int, min_new_tokens: int = 0, **given: Any) -> Tensor:
        """Greedily: tokens (B, N), those of the prefix first."""
        marks: Any = self.generation_config
        suppressed = list(getattr(marks, "suppress_tokens", None) or ())
        at_first = list(getattr(marks, "begin_suppress_tokens", None) or ())
        (states,) = self._outputs(ENCODER, given)
        said = torch.tensor([self.prefix] * len(states))
        logits, past = self._first(said, states)
        done = torch.zeros(len(states), dtype=torch.bool)
        for place in range(max_new_tokens):
            scores = logits[:, -1].float().cpu()
            scores[:, suppressed] = -torch.inf
            if place == 0:
                scores[:, at_first] = -torch.inf
            if place < min_new_tokens:
                scores[:, self.end] = -torch.inf
            token = scores.argmax(-1).masked_fill(done, self.end)
            said, done = torch.cat([said, token[:, None]], dim=1), done | (token == self.end)
            if bool(done.all()) or place + 1 == max_new_tokens:
                break
            logits, past = self._next(token[:, None], past)
        return said
