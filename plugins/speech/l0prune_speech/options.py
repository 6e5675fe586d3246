"""The speech plugin's own settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from l0prune import ConfigError
from l0prune.support import Setting, check_fields
from l0prune_speech.units import DEFAULT_UNITS, UNITS

Seconds = Annotated[float, Setting(gt=0)]
Weight = Annotated[float, Setting(ge=0)]

PACKAGES = ("torchaudio",)
"""Distributions whose versions matter to what this plugin finds."""


@dataclass(frozen=True, kw_only=True)
class StreamingOptions:
    """A student that hears chunks, whatever its teacher hears."""

    chunk_ms: Annotated[float, Setting(gt=0)]
    """Milliseconds of a chunk, whole frames: the student gives the frames of a chunk at once."""
    left_ms: Annotated[float, Setting(ge=0)] = 1280.0
    """Milliseconds before a chunk that its frames attend to in every layer; what they need of them is kept."""
    right_ms: Annotated[float, Setting(ge=0)] = 0.0
    """Milliseconds after a chunk that its frames attend to; the student waits for them, once for all layers."""


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """The table [speech] of a configuration."""

    teacher: str = "embedded"
    """The network to compress: "embedded", a torchaudio bundle name, a checkpoint file or folder of any known format,
    or a hub id."""
    data: tuple[str, ...] = ()
    """Training data: audio files, folders, tsv manifests, shards or lhotse manifests; by default the embedded clips."""
    task: str = ""
    """What for: distill, ctc, seq2seq, classify, speaker or frames; by default that of the teacher's head."""
    units: Annotated[tuple[str, ...], Setting(separator=",")] = DEFAULT_UNITS
    """Kinds of unit to prune: conv, head, ffn, attention, feed_forward."""
    matched_layers: tuple[int, ...] = ()
    """Teacher layers to match. By default 0 and each third of the depth; through a class of its own the last one."""
    every_layer: Annotated[bool, Setting(later=True)] = False
    """Match every layer of the teacher, 0 among them."""
    layer_weighting: Annotated[Literal["equal", "learned"], Setting(later=True)] = "equal"
    """Of matched layers: their mean, or weights that are learned by the uncertainty of each (arXiv 1705.07115)."""
    mode: str = "layers"
    """ "layers" (the paper's) or "prediction" (DistilHuBERT's)."""
    projections: Annotated[bool, Setting(later=True)] = True
    """Project the student's hidden states before they are compared; projections are never exported."""
    l1_weight: Weight = 1.0
    """Of the mean absolute distance between the student's and the teacher's hidden states."""
    l2_weight: Weight = 0.0
    """Of their mean squared distance."""
    cosine_weight: Weight = 1.0
    """Of one minus their cosine similarity."""
    cosine_form: Literal["linear", "log_sigmoid"] = "linear"
    """1 - cos, or -log sigmoid(cos) (DistilHuBERT's)."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Weights of distillation terms by name: l1, l2, cosine, cosine_log_sigmoid, gram, gram_step, attention,
    value_relation, cluster_means, units, masked_units, logits, or your own. They take the place of the weights
    above."""
    layer_clusters: Annotated[int, Setting(ge=1, later=True)] = 4
    """Clusters of layers whose means the term cluster_means matches."""
    unit_layers: Annotated[tuple[int, ...], Setting(later=True)] = ()
    """Teacher layers whose frames are clustered to units; by default the one at three quarters of the depth."""
    unit_count: Annotated[int, Setting(ge=2, later=True)] = 100
    """Units of each of these layers; k-means needs 10 frames for each."""
    unit_seconds: Annotated[float, Setting(gt=0, later=True)] = 3600.0
    """Audio, of the first epoch, from which units and clusters of layers are found."""
    mask_probability: Annotated[float, Setting(gt=0, le=1, later=True)] = 0.08
    """That a frame begins a span that is hidden from the student, for the term masked_units."""
    mask_frames: Annotated[int, Setting(ge=1, later=True)] = 10
    """Length of such a span."""
    masked_share: Annotated[float, Setting(gt=0, lt=1, later=True)] = 0.5
    """Of a batch's clips that have spans, where other terms hear the rest; without other terms all have."""
    layer_weight: Weight = 1.0
    """Of the matched layers, through a class of its own; the distances' weights are inside it."""
    logit_weight: Weight = 0.0
    """Of the distance from the teacher's logits: KL divergence, or the cosine of x-vectors."""
    temperature: Annotated[float, Setting(gt=0)] = 2.0
    """At which logits are compared."""
    task_weight: Weight = 0.5
    """Of the task's own loss, in nats; labels are the teacher's own answers where there are none."""
    ignored: Annotated[tuple[str, ...], Setting(separator=",")] = ()
    """Modules that are left as they are, by dotted names (lm_head, model.decoder), through a class of its own."""
    frozen: Annotated[tuple[str, ...], Setting(separator=",")] = ()
    """Modules whose weights stay as they are, by dotted names (model.decoder), through a class of its own."""
    train_tokens: bool = False
    """Train a decoder's table of tokens too, and the output layer that shares it."""
    language: str = ""
    """Of the transcripts, for a network of several languages; English by default."""
    window_seconds: Annotated[float, Setting(ge=0)] = 0.0
    """What a network of fixed windows hears at once, in whole seconds; the longest clip by default."""
    join_clips: bool = False
    """Join short clips, and their transcripts, to fill windows."""
    join_rounds: Annotated[int, Setting(ge=1)] = 4
    """How often all clips are joined, each time in another order."""
    kept_gigabytes: Annotated[float, Setting(ge=0)] = 2.0
    """Memory for what the teacher says of batches that come again."""
    dropout: bool = True
    """Train the student with its teacher's dropout rates."""
    layer_drop: Annotated[float, Setting(ge=0, lt=1)] = 0.0
    """Probability of skipping a transformer layer of the student; the published code has none in effect."""
    batch_seconds: Seconds = 40.0
    """Seconds of audio in a batch."""
    min_seconds: Seconds = 2.0
    """Shorter clips are joined or left out, and counted."""
    short_clips: Annotated[Literal["join", "skip"], Setting(later=True, before="skip")] = "join"
    """Clips below min_seconds: join them to windows that are as long, or skip them; with labels they are skipped."""
    max_seconds: Seconds = 15.6
    """Longer clips are cropped to this."""
    evaluation_seconds: Seconds = 60.0
    """Audio held out from training, on which the reported losses are measured."""
    workers: Annotated[int, Setting(ge=0, le=1024, may_change=True)] = 1
    """Processes that decode audio."""
    crop_epochs: Annotated[int, Setting(ge=0)] = 0
    """After this many epochs the same crops come again, in another order; 0 for new ones each epoch."""
    cache: str = ""
    """Folder for the teacher's hidden states, which are computed once for each crop; needs crop_epochs."""
    cache_gigabytes: Annotated[float, Setting(gt=0)] = 50.0
    """Nothing is added to a cache of this size."""
    activation_checkpointing: bool = False
    """Keep no activations within the student's layers: less memory, one more forward pass."""
    streaming: Annotated[StreamingOptions | None, Setting(later=True)] = None
    """A student that hears chunks, trained by masks; its teacher hears whole clips."""

    def __post_init__(self) -> None:
        # Of a shell variable that is not set, say: as a path it would be the current folder.
        if not self.teacher or "" in self.data:
            where = "data" if self.teacher else "teacher"
            raise ConfigError(f"{where} is empty", got='""', expected="the name of a file, a folder or a teacher")
        if not self.units:
            raise ConfigError("no units to prune", expected=f"some of {', '.join(UNITS)}")
        check_fields(self)
        names = ("l1_weight", "l2_weight", "cosine_weight")
        weights = {name: getattr(self, name) for name in names} | {f"terms.{name}": w for name, w in self.terms.items()}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{name} out of range", got=weight, expected="0 or more")
        if not any(self.term_weights().values()):
            expected = f"one of {', '.join(names)}, or of terms, above 0"
            raise ConfigError("nothing to minimise", got="weights of 0", expected=expected)
        if self.every_layer and self.matched_layers:
            hint = "leave one of them out"
            raise ConfigError(
                "every layer, and some", where="speech.matched_layers", got=self.matched_layers, hint=hint
            )
        if self.cache and not self.crop_epochs:
            raise ConfigError(
                "a cache needs crops that come again", got="crop_epochs 0", hint="set crop_epochs to 1 or more"
            )

    def term_weights(self) -> dict[str, float]:
        """The weight of each distillation term, by name."""
        cosine = "cosine" if self.cosine_form == "linear" else "cosine_log_sigmoid"
        weights = {"l1": self.l1_weight, "l2": self.l2_weight, cosine: self.cosine_weight}
        return weights | dict(self.terms)
