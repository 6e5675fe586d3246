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

from l0prune import ConfigError, DataError, PruneGroup, listed
from l0prune.formats import quiet
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.families.heads import Head, head_for
from l0prune_speech.families.network import BESIDE, Answer, Heard, Inputs, SpeechNetwork
from l0prune_speech.families.registry import Family, Wish

SUFFIXES = {
    "ForCTC": "ctc",
    "ForConditionalGeneration": "seq2seq",
    "ForSpeechSeq2Seq": "seq2seq",
    "ForSequenceClassification": "classify",
    "ForAudioClassification": "classify",
    "ForXVector": "speaker",
    "ForAudioFrameClassification": "frames",
}
"""What the name of a class says of its head."""
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
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", *_PICKLES)


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


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json.

    Raises:
        DataError: It is damaged.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("cannot read the settings", where=folder / "config.json", got=error) from error
    if not isinstance(content, dict):
        raise DataError("not the settings of a model", where=folder / "config.json", got=type(content).__name__)
    return content


def class_of(folder: Path, stated: Mapping[str, Any]) -> str:
    """The name of a checkpoint's class.

    Raises:
        DataError: None is stated, or it is a decoder alone.
    """
    names = stated.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        hint = "config.json says it under `architectures`, as save_pretrained writes it"
        raise DataError("the checkpoint does not say which class it is of", where=folder / "config.json", hint=hint)
    if names[0].endswith("ForCausalLM"):
        hint = "give the whole model, encoder and decoder"
        raise DataError("a decoder without an encoder hears nothing", where=folder, got=names[0], hint=hint)
    return names[0]


def task_of_class(name: str) -> str:
    """The task of a class's head; "distill" where it has none."""
    return next((task for suffix, task in SUFFIXES.items() if name.endswith(suffix)), "distill")


def _open(family: str, ways: Ways, folder: Path, wish: Wish) -> SpeechNetwork:
    stated = read_config(folder)
    name = class_of(folder, stated)
    has, task = task_of_class(name), wish.task or task_of_class(name)
    if task not in ("distill", has):
        hint = f"--task {has}, or --task distill for its encoder alone" if has != "distill" else "--task distill"
        raise ConfigError("the checkpoint has no head for the task", where=folder, got=f"{name} for {task}", hint=hint)
    model, notes = _load(folder, name)
    if task == "distill":
        model = _encoder(model, ways)
        if has != "distill":
            notes += (f"the head of {name} was left out",)
    if ways.prepare is not None:
        ways.prepare(model)
    extractor, remarks = _extractor(folder, stated, ways)
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


def _load(folder: Path, name: str) -> tuple[Any, tuple[str, ...]]:
    """The model by its own class, and what was missing."""
    import transformers

    cls = getattr(transformers, name, None)
    if cls is None:
        hint = "upgrade transformers, or register a family for it"
        raise DataError("transformers has no such class", where=folder / "config.json", got=name, hint=hint)
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise DataError("no weights", where=folder, expected=" or ".join(_WEIGHTS))
    settings: dict[str, Any] = {"local_files_only": True, "output_loading_info": True, "dtype": torch.float32}
    try:
        with quiet():
            model, found = cls.from_pretrained(str(folder), **settings)
    except Exception as error:
        got = " ".join(str(error).split())[:200]
        raise DataError("cannot load the checkpoint", where=folder, got=f"{type(error).__name__}: {got}") from error
    missing = [key for key in sorted(found["missing_keys"]) if "masked_spec_embed" not in key]
    if missing:
        raise DataError("weights are missing", where=folder, got=listed(missing[:4]), expected=f"those of {name}")
    return model, ()


def _encoder(model: Any, ways: Ways) -> nn.Module:
    if not ways.encoder:
        return model.base_model
    for path in (ways.encoder, ways.encoder.rpartition(".")[2]):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    return model


def _extractor(folder: Path, stated: Mapping[str, Any], ways: Ways) -> tuple[Any, tuple[str, ...]]:
    """The feature extractor of a checkpoint, and what was assumed."""
    from transformers import AutoFeatureExtractor

    there = [name for name in ("preprocessor_config.json", "processor_config.json") if (folder / name).is_file()]
    notes: tuple[str, ...] = ()
    try:
        if there:
            extractor = AutoFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        else:
            extractor = (ways.extractor or waveform_extractor)(stated)
            notes = (f"no settings of a feature extractor: {type(extractor).__name__} with its defaults is assumed",)
    except Exception as error:
        got = " ".join(str(error).split())[:200]
        raise DataError("cannot make the feature extractor", where=folder, got=got) from error
    rate = getattr(extractor, "sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        where = folder / (there[0] if there else "config.json")
        raise DataError("feature extractor of another sample rate", where=where, got=f"{rate} Hz", expected="16000 Hz")
    return extractor, notes


def waveform_extractor(stated: Mapping[str, Any]) -> Any:
    """That of a network which hears waveforms: layer norms in its convolutions want clips normalised and masked."""
    from transformers import Wav2Vec2FeatureExtractor

    layered = stated.get("feat_extract_norm") == "layer"
    return Wav2Vec2FeatureExtractor(do_normalize=layered, return_attention_mask=layered)


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
    extractor, _ = _extractor(beside, architecture["config"], ways)
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
