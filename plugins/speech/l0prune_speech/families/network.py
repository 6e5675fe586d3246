"""A speech network as it is compressed: what it is given, what it makes of it, and what is learnt from its head.

Legend: B clips, T frames, D width, N tokens, V classes or vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import ConfigError, PruneGroup

TASKS: Mapping[str, str] = {
    "distill": "the encoder without its head: hidden states alone",
    "ctc": "recognition by CTC; labels are transcripts (text)",
    "seq2seq": "recognition by encoder and decoder; labels are transcripts (text)",
    "classify": "a class a clip (label)",
    "speaker": "a speaker a clip, by x-vectors (speaker)",
    "frames": "a class a frame (label)",
}
"""What a network is compressed for, by name."""

BESIDE = "processor"
"""The folder of a run that holds what is kept beside its network."""
Answer = tuple[int, ...]
"""A label in numbers: tokens, one class, or a class a frame."""
Inputs = Mapping[str, Tensor]
"""Keyword arguments of a network's forward pass."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a network makes of a batch."""

    states: tuple[Tensor, ...]
    """Hidden states of the encoder (B, T, D), from its input to its last layer."""
    frames: Tensor
    """(B, T), true where a frame is not padding; states may have another T for the same time."""
    logits: Tensor | None = None
    """(B, T, V) by frame, (B, N, V) by token, or (B, V) by clip."""
    counted: Tensor | None = None
    """Which of them count, of their shape without V; all by default."""


@dataclass(kw_only=True)
class SpeechNetwork(ABC):
    """A network, its feature extractor and its head.

    Subclasses give `inputs` and `hear`, and with a head `encode`, `decode`, `answers` and `loss`.
    """

    family: str
    name: str
    """Where it came from."""
    model: nn.Module
    """In evaluation mode, float32."""
    task: str = "distill"
    """One of `TASKS`: what its head is for."""
    architecture: Mapping[str, Any]
    """JSON that the family's `build` makes the dense network from."""
    notes: tuple[str, ...] = ()
    """What was assumed or left out in reading it."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What is kept beside a run's network: tokenizer, settings of the feature extractor."""
    longest_seconds: float | None = None
    """Of a clip that it can hear; None for any."""
    shortest_seconds: float = 0.0
    """Of a clip that gives a frame."""
    window_seconds: float | None = None
    """What each clip is padded to; None for the longest of a batch."""

    @property
    def parameters(self) -> int:
        """How many the network has; of an export, those of what was exported."""
        stated = getattr(self.model, "stated_parameters", None)
        return stated if isinstance(stated, int) else sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def fixed(self) -> tuple[str, ...]:
        """Modules that cannot be pruned, by dotted names."""
        return ()

    def own_groups(self, model: nn.Module) -> list[PruneGroup]:
        """Prune groups that following the forward pass of a model does not find; none by default."""
        return []

    @abstractmethod
    def inputs(self, clips: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the network is given for clips, each (samples,) at 16 kHz."""

    @abstractmethod
    def hear(self, model: nn.Module, inputs: Inputs, answers: Sequence[Answer] | None = None) -> Heard:
        """Run a network of this architecture, gated or pruned.

        Args:
            model: `self.model`, or what became of a copy of it.
            inputs: What `inputs` gives.
            answers: A decoder is told these, and says nothing without; others need none.
        """

    def fit_window(self, seconds: float) -> None:  # noqa: B027
        """Let a network of fixed windows hear that many seconds at once, `model` and all; others stay as they are.

        Raises:
            ConfigError: It cannot hear as many.
        """

    def encode(self, label: str) -> Answer:
        """A label, as it stands in a list, in numbers.

        Raises:
            DataError: It does not fit the head.
        """
        raise headless(self.name)

    def decode(self, answer: Answer) -> str:
        """The inverse of `encode`, as far as there is one."""
        raise headless(self.name)

    def answers(self, model: nn.Module, inputs: Inputs, seconds: float) -> list[Answer]:
        """What a network says of a batch whose longest clip has a number of seconds: labels where there are none."""
        raise headless(self.name)

    def loss(self, model: nn.Module, heard: Heard, answers: Sequence[Answer]) -> Tensor:
        """The task's own loss, a scalar."""
        raise headless(self.name)

    def match(self, student: Heard, teacher: Heard, temperature: float) -> Tensor:
        """How far a student's logits are from the teacher's, a scalar; by default `divergence`."""
        return divergence(student, teacher, temperature)

    def remarks(self) -> tuple[str, ...]:
        """What is to be said of the labels that were encoded so far."""
        return ()

    def export(self, model: nn.Module, folder: Any) -> tuple[str, ...]:
        """Write a network as its users know it.

        Args:
            model: Pruned or dense.
            folder: An empty one.

        Returns:
            What was left out or supplied.

        Raises:
            ConfigError: The family has no such form.
        """
        raise ConfigError("the family is not exported so", where=self.family)


def headless(name: str) -> ConfigError:
    """What is raised where a network without a head is asked for what a head does."""
    return ConfigError("the network has no head", where=name, hint="--task distill needs none")


def divergence(student: Heard, teacher: Heard, temperature: float) -> Tensor:
    """KL divergence of logits in nats at a temperature, times its square, over those that count.

    Source: Hinton et al. 2015 (arXiv 1503.02531), section 2.
    """
    assert student.logits is not None
    assert teacher.logits is not None
    ours, theirs = student.logits.float() / temperature, teacher.logits.float() / temperature
    if student.counted is not None:
        ours, theirs = ours[student.counted], theirs[student.counted]
    ours, theirs = (F.log_softmax(logits.flatten(0, -2), dim=-1) for logits in (ours, theirs))
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * temperature**2
