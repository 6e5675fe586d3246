"""Any speech model of transformers through its own class.

Legend: B clips, S samples or frames of features, T frames, D width.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import ConfigError, PruneGroup
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.families.heads import Head, head_for
from l0prune_speech.families.network import BESIDE, Answer, Heard, Inputs, SpeechNetwork
from l0prune_speech.families.registry import Family, Wish
from l0prune_speech.families.transformers_checkpoint import (
    class_of,
    feature_extractor,
    load_model,
    read_config,
    task_of_class,
)

_MODULES = "transformers.models."
_KEPT = (
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""Files of a checkpoint's folder that a run keeps: they are small, and its network cannot be used without them."""


@dataclass(frozen=True, kw_only=True)
class Ways:
    """What tells one transformers family from another."""

    encoder: str = ""
    """Where the encoder stands in a model with a head; by default transformers' base model."""
    extractor: Callable[[Mapping[str, Any]], Any] | None = None
    """The feature extractor of a checkpoint that comes without its settings, from the content of config.json; by
    default that of waveforms."""
    frames: Callable[[nn.Module, Tensor], Tensor] | None = None
    """The model and the length of each input (B,) -> valid frames of each (B,)."""
    prepare: Callable[[nn.Module], None] | None = None
    """Changes a model so that more of it can be pruned, without changing what it computes."""
    groups: Callable[[nn.Module], list[PruneGroup]] | None = None
    """Groups of a model that following the forward pass does not find."""
    window: Callable[[nn.Module, Any, float], float] | None = None
    """The model, its extractor and the seconds that are wanted (0 for its own) -> the seconds of a fixed window; both
    are changed to it."""
    longest_seconds: Callable[[nn.Module], float | None] | None = None
    """What a model hears at most at once, where that is not its window."""
    fixed: Callable[[nn.Module], tuple[str, ...]] | None = None
    """The modules of a model that cannot be pruned, by dotted names."""
    spoken: Callable[[str], str] = str
    """What pieces of words are made of: a transcript, as the tokenizer wants it."""


def transformers_family(name: str, description: str, **ways: Any) -> Family:
    """A family of transformers' classes; `ways` are the fields of `Ways`, where they differ from the plain case."""
    chosen = Ways(**ways)
    return Family(
        name=name,
        description=description,
        open=partial(_open, name, chosen),
        build=partial(_build, chosen),
        around=partial(_around, name, chosen),
    )


def _open(family: str, ways: Ways, folder: Path, wish: Wish) -> SpeechNetwork:
    stated = read_config(folder)
    name = class_of(folder, stated)
    has, task = task_of_class(name), wish.task or task_of_class(name)
    if task not in ("distill", has):
        hint = f"--task {has}, or --task distill for its encoder alone" if has != "distill" else "--task distill"
        raise ConfigError("the checkpoint has no head for the task", where=folder, got=f"{name} for {task}", hint=hint)
    model, notes = load_model(folder, name)
    if task == "distill":
        model = _encoder(model, ways)
        if has != "distill":
            notes += (f"the head of {name} was left out",)
    if ways.prepare is not None:
        ways.prepare(model)
    extractor, remarks = feature_extractor(folder, stated, ways.extractor)
    window = ways.window(model, extractor, 0.0) if ways.window else None
    architecture = {
        "class": type(model).__name__,
        "module": type(model).__module__,
        "config": _plain_config(model.config),
        "task": task,
        "window_seconds": window,
        "language": wish.language,
    }
    files = {path.name: path.read_bytes() for path in (folder / name for name in _KEPT) if path.is_file()}
    if not files.keys() & {"preprocessor_config.json", "processor_config.json"}:
        files["preprocessor_config.json"] = extractor.to_json_string().encode()
    return _network(family, ways, model, architecture, extractor, files, (folder, folder), notes + remarks)


def _network(
    family: str,
    ways: Ways,
    model: nn.Module,
    architecture: Mapping[str, Any],
    extractor: Any,
    files: Mapping[str, bytes],
    places: tuple[Path, Path],
    notes: tuple[str, ...],
) -> "TransformersNetwork":
    still(model)
    return TransformersNetwork(
        family=family,
        name=str(places[0]),
        model=model.float().eval(),
        task=architecture["task"],
        architecture=architecture,
        notes=notes,
        files={f"{BESIDE}/{file}": content for file, content in files.items()},
        longest_seconds=ways.longest_seconds(model) if ways.longest_seconds else architecture["window_seconds"],
        window_seconds=architecture["window_seconds"],
        extractor=extractor,
        ways=ways,
        beside=places[1],
    )


def still(model: nn.Module) -> None:
    """Switch off what disturbs hidden states at random beside dropout: masks in time, layers that are skipped."""
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        for name in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
            if isinstance(getattr(config, name, None), float):
                setattr(config, name, 0.0)
        if hasattr(config, "apply_spec_augment"):
            config.apply_spec_augment = False


def _plain_config(config: Any) -> dict[str, Any]:
    """The settings of a model in JSON that its class takes again."""
    return json.loads(json.dumps(config.to_dict()))


def _encoder(model: Any, ways: Ways) -> nn.Module:
    if not ways.encoder:
        return model.base_model
    for path in (ways.encoder, ways.encoder.rpartition(".")[2]):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    return model


def _build(ways: Ways, architecture: Mapping[str, Any]) -> nn.Module:
    module, name = str(architecture["module"]), str(architecture["class"])
    if not module.startswith(_MODULES):
        raise ValueError(f"{module} is not a module of transformers")
    cls = getattr(import_module(module), name)
    config = cls.config_class.from_dict(copy.deepcopy(dict(architecture["config"])))
    model = cls(config)
    if ways.prepare is not None:
        ways.prepare(model)
    still(model)
    return model


def _around(family: str, ways: Ways, model: nn.Module, architecture: Mapping[str, Any], folder: Path) -> SpeechNetwork:
    # An export keeps such files beside its programs.
    beside = folder / BESIDE if (folder / BESIDE).is_dir() else folder
    extractor, _ = feature_extractor(beside, architecture["config"], ways.extractor)
    if hasattr(model, "generation_config") and (beside / "generation_config.json").is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(str(beside))  # type: ignore[assignment]
    files = {path.name: path.read_bytes() for path in sorted(beside.glob("*")) if path.name in _KEPT}
    return _network(family, ways, model, architecture, extractor, files, (folder, beside), ())


class TransformersNetwork(SpeechNetwork):
    """A model of transformers.

    Args:
        extractor: Its feature extractor.
        ways: What tells its family from others.
        beside: The folder that holds its tokenizer.
        given: As `SpeechNetwork`'s.
    """

    def __init__(self, *, extractor: Any, ways: Ways, beside: Path, **given: Any) -> None:
        super().__init__(**given)
        self.extractor, self.ways, self.beside = extractor, ways, beside
        self.head: Head = head_for(self, self.task)

    @property
    def fixed(self) -> tuple[str, ...]:
        """As `SpeechNetwork`'s."""
        named = {name.rpartition(".")[2]: name for name, _ in self.model.named_modules()}
        of_head = tuple(named[name] for name in self.head.fixed if name in named)
        return (*of_head, *(self.ways.fixed(self.model) if self.ways.fixed else ()))

    def own_groups(self, model: nn.Module) -> list[PruneGroup]:
        """As `SpeechNetwork`'s."""
        return self.ways.groups(model) if self.ways.groups else []

    @property
    def language(self) -> str:
        """Of the transcripts."""
        return str(self.architecture.get("language") or "en")

    def spoken(self, text: str) -> str:
        """What pieces of words are made of."""
        return self.ways.spoken(text)

    def inputs(self, clips: Sequence[Tensor]) -> dict[str, Tensor]:
        """As `SpeechNetwork`'s: its own feature extractor's output, padded to the longest clip or to the window."""
        sounds = [clip.numpy() for clip in clips]
        padding: dict[str, Any] = {"padding": True} if self.window_seconds is None else {}
        made = self.extractor(sounds, sampling_rate=SAMPLE_RATE, return_tensors="pt", **padding)
        inputs = {name: value for name, value in made.items() if isinstance(value, Tensor)}
        if self.window_seconds is None and "attention_mask" not in inputs:
            # Not for the network, which was trained without: which frames are heard.
            inputs["lengths"] = torch.tensor([len(clip) for clip in clips])
        return inputs

    def hear(self, model: nn.Module, inputs: Inputs, answers: Sequence[Answer] | None = None) -> Heard:
        """As `SpeechNetwork`'s."""
        lengths = inputs.get("lengths")
        given = {name: value for name, value in inputs.items() if name != "lengths"}
        states, logits = self.head.run(model, given, answers)
        # Of the logits, where there are some for each frame: SEW's layers have half as many.
        per_frame = logits if self.task in ("ctc", "frames") else states[-1]
        frames = self._frames(model, given, lengths, per_frame)
        return Heard(states=states, frames=frames, logits=logits, counted=self.head.counted(logits, frames, answers))

    def _frames(self, model: nn.Module, inputs: Inputs, lengths: Tensor | None, state: Tensor) -> Tensor:
        count = state.shape[1]
        if self.window_seconds is not None:
            return torch.ones(state.shape[:2], dtype=torch.bool, device=state.device)
        if lengths is None:
            lengths = inputs["attention_mask"].sum(-1)
        valid = (self.ways.frames or _frames_of)(model, lengths)
        return torch.arange(count, device=state.device) < valid.to(state.device).clamp(1, count)[:, None]

    def fit_window(self, seconds: float) -> None:
        """As `SpeechNetwork`'s."""
        if self.ways.window is None or self.window_seconds is None:
            return
        window = self.ways.window(self.model, self.extractor, seconds)
        self.window_seconds = self.longest_seconds = window
        config = _plain_config(self.model.config)
        self.architecture = {**self.architecture, "config": config, "window_seconds": window}
        kept = {name: content for name, content in self.files.items() if not name.endswith("/processor_config.json")}
        settings = self.extractor.to_json_string().encode()
        self.files = {**kept, f"{BESIDE}/preprocessor_config.json": settings}

    def encode(self, label: str) -> Answer:
        """As `SpeechNetwork`'s."""
        return self.head.encode(label)

    def decode(self, answer: Answer) -> str:
        """As `SpeechNetwork`'s."""
        return self.head.decode(answer)

    @torch.no_grad()
    def answers(self, model: nn.Module, inputs: Inputs, seconds: float) -> list[Answer]:
        """As `SpeechNetwork`'s."""
        return self.head.answers(model, inputs, seconds)

    def loss(self, model: nn.Module, heard: Heard, answers: Sequence[Answer]) -> Tensor:
        """As `SpeechNetwork`'s."""
        return self.head.loss(model, heard, answers)

    def match(self, student: Heard, teacher: Heard, temperature: float) -> Tensor:
        """As `SpeechNetwork`'s."""
        return self.head.match(student, teacher, temperature)

    def remarks(self) -> tuple[str, ...]:
        """As `SpeechNetwork`'s."""
        return self.head.remarks()

    def export(self, model: nn.Module, folder: Path) -> tuple[str, ...]:
        """As `SpeechNetwork`'s: a Hugging Face directory."""
        from l0prune_speech.families.transformers_export import write_directory

        if any(len(group.places[0].index) != attention_heads(self, group) for group in self.own_groups(model)):
            hint = "--units conv,ffn leaves them"
            raise ConfigError("its attention with fewer heads has no Hugging Face form", where=self.name, hint=hint)
        return write_directory(self, model, folder)


def attention_heads(network: SpeechNetwork, group: PruneGroup) -> int:
    """The heads of a group in the dense network."""
    return int(network.architecture["config"]["num_attention_heads"])


def _frames_of(model: nn.Module, lengths: Tensor) -> Tensor:
    """Of transformers' own count."""
    for module in model.modules():
        count = getattr(module, "_get_feat_extract_output_lengths", None)
        if count is not None:
            return count(lengths)
    return lengths
