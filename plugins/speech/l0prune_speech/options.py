"""The speech plugin's own settings."""

import math
from dataclasses import dataclass

from l0prune import ConfigError

PACKAGES = ("torchaudio",)
"""Distributions whose versions matter to what this plugin finds."""


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """The table [speech] of a configuration."""

    teacher: str = "embedded"
    """ "embedded", a torchaudio bundle name, a checkpoint file or folder of any known format, or a hub id."""
    data: tuple[str, ...] = ()
    """Audio files, folders or tsv manifests; the embedded clips by default."""
    units: tuple[str, ...] = ("conv", "head", "ffn")
    """Kinds of unit to prune: conv, head, ffn, attention, feed_forward."""
    matched_layers: tuple[int, ...] = ()
    """Teacher layers to match; 0 and each third of the depth by default."""
    mode: str = "layers"
    """ "layers" (the paper's) or "prediction" (DistilHuBERT's)."""
    l1_weight: float = 1.0
    l2_weight: float = 0.0
    cosine_weight: float = 1.0
    cosine_form: str = "linear"
    """ "linear" or "log_sigmoid"."""
    dropout: bool = True
    """Train the student with its teacher's dropout rates."""
    layer_drop: float = 0.0
    """Probability of skipping a transformer layer of the student; the published code has none in effect."""
    batch_seconds: float = 40.0
    """Seconds of audio in a batch."""
    min_seconds: float = 2.0
    """Shorter clips are left out, and counted."""
    max_seconds: float = 15.6
    """Longer clips are cropped to this."""
    evaluation_seconds: float = 60.0
    """Audio held out from training, on which the reported losses are measured."""
    workers: int = 1
    """Processes that decode audio."""
    crop_epochs: int = 0
    """After this many epochs the same crops come again, in another order; 0 for new ones each epoch."""
    cache: str = ""
    """Folder for the teacher's hidden states, which are computed once for each crop; needs crop_epochs."""
    cache_gigabytes: float = 50.0
    """Nothing is added to a cache of this size."""
    activation_checkpointing: bool = False
    """Keep no activations within the student's layers: less memory, one more forward pass."""

    def __post_init__(self) -> None:
        # Of a shell variable that is not set, say: as a path it would be the current folder.
        if not self.teacher or "" in self.data:
            where = "data" if self.teacher else "teacher"
            raise ConfigError(f"{where} is empty", got='""', expected="the name of a file, a folder or a teacher")
        if not self.units:
            raise ConfigError("no units to prune", expected="conv, head, ffn, attention or feed_forward")
        if not 0 <= self.layer_drop < 1:
            raise ConfigError("layer_drop out of range", got=self.layer_drop, expected="0 up to 1")
        for name in ("batch_seconds", "min_seconds", "max_seconds", "evaluation_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} out of range", got=getattr(self, name), expected="above 0")
        weights = {name: getattr(self, name) for name in ("l1_weight", "l2_weight", "cosine_weight")}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{name} out of range", got=weight, expected="0 or more")
        if not any(weights.values()):
            raise ConfigError(
                "nothing to minimise", got="weights of 0", expected=f"one of {', '.join(weights)} above 0"
            )
        if self.crop_epochs < 0:
            raise ConfigError("crop_epochs out of range", got=self.crop_epochs, expected="0 or more")
        if self.cache and not self.crop_epochs:
            raise ConfigError(
                "a cache needs crops that come again", got="crop_epochs 0", hint="set crop_epochs to 1 or more"
            )
        if not self.cache_gigabytes > 0:
            raise ConfigError("cache_gigabytes out of range", got=self.cache_gigabytes, expected="above 0")
        if self.workers < 0:
            raise ConfigError("workers out of range", got=self.workers, expected="0 or more")
