"""What the heads of transformers' models give, learn from and say; one class a task.

Legend: B clips, T frames, N tokens, V classes or vocabulary, D width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from l0prune import DataError, listed
from l0prune.formats import quiet
from l0prune_speech.families.network import Answer, Heard, Inputs, divergence, headless
from l0prune_speech.families.vocabulary import Vocabulary, vocabulary_of

_TOKENS_PER_SECOND, _MORE_TOKENS = 7, 10
"""A decoder that loops is stopped after these: speech has about four tokens a second."""
LABELS_PER_SECOND = 100
"""In labels of frames, which are stretched to the frames of a network."""


class Owner(Protocol):
    """What a head knows of its network."""

    name: str
    model: Any
    beside: Path
    """Holds its tokenizer."""

    @property
    def language(self) -> str:
        """Of the transcripts."""
        ...

    def spoken(self, text: str) -> str:
        """What pieces of words are made of."""
        ...

    def hear(self, model: Any, inputs: Inputs, answers: Sequence[Answer] | None = None) -> Heard:
        """As `SpeechNetwork`'s."""
        ...


class Head:
    """No head: hidden states alone.

    Args:
        network: Whose.
    """

    fixed: tuple[str, ...] = ()
    """Modules that cannot be pruned."""

    def __init__(self, network: Owner) -> None:
        self.network = network

    def run(self, model: Any, inputs: Inputs, answers: Sequence[Answer] | None) -> tuple[tuple[Tensor, ...], Any]:
        """The encoder's hidden states, and logits where there are any."""
        output = model(**inputs, output_hidden_states=True)
        return output.hidden_states, getattr(output, "logits", None)

    def counted(self, logits: Tensor | None, frames: Tensor, answers: Sequence[Answer] | None) -> Tensor | None:
        """Which logits count, of their shape without V; None for all."""
        return None

    def encode(self, label: str) -> Answer:
        """As `SpeechNetwork`'s."""
        raise headless(self.network.name)

    def decode(self, answer: Answer) -> str:
        """As `SpeechNetwork`'s."""
        raise headless(self.network.name)

    def answers(self, model: Any, inputs: Inputs, seconds: float) -> list[Answer]:
        """As `SpeechNetwork`'s."""
        raise headless(self.network.name)

    def loss(self, model: Any, heard: Heard, answers: Sequence[Answer]) -> Tensor:
        """As `SpeechNetwork`'s."""
        raise headless(self.network.name)

    def match(self, student: Heard, teacher: Heard, temperature: float) -> Tensor:
        """As `SpeechNetwork`'s."""
        return divergence(student, teacher, temperature)

    def remarks(self) -> tuple[str, ...]:
        """As `SpeechNetwork`'s."""
        return ()


class _Spoken(Head):
    """A head that writes down what is said."""

    _read: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """Text to numbers and back; read at first use."""
        if self._read is None:
            size = int(self.network.model.config.vocab_size)
            self._read = vocabulary_of(self.network.beside, self.network.spoken, size)
        return self._read

    def encode(self, label: str) -> Answer:
        return self.vocabulary.encode(label)

    def decode(self, answer: Answer) -> str:
        return self.vocabulary.decode(answer)

    def remarks(self) -> tuple[str, ...]:
        return self._read.remarks() if self._read else ()


class CTCHead(_Spoken):
    """Tokens and blanks, frame by frame (Graves et al. 2006)."""

    @property
    def blank(self) -> int:
        """Its number."""
        return int(self.network.model.config.pad_token_id)

    def counted(self, logits: Tensor | None, frames: Tensor, answers: Sequence[Answer] | None) -> Tensor | None:
        """As `Head`'s."""
        return frames

    def answers(self, model: Any, inputs: Inputs, seconds: float) -> list[Answer]:
        """As `Head`'s."""
        heard = self.network.hear(model, inputs)
        assert heard.logits is not None
        return self.read_off(heard.logits, heard.frames)

    def read_off(self, logits: Tensor, frames: Tensor) -> list[Answer]:
        """The best path: the likeliest token of each frame, repeats and blanks left out."""
        best = logits.argmax(-1).masked_fill(~frames, self.blank)
        rows = (torch.unique_consecutive(row).tolist() for row in best)
        return [tuple(token for token in row if token != self.blank) for row in rows]

    def loss(self, model: Any, heard: Heard, answers: Sequence[Answer]) -> Tensor:
        """Nats a token."""
        assert heard.logits is not None
        device = heard.logits.device
        lengths = torch.tensor([len(answer) for answer in answers], device=device)
        targets = torch.tensor([token for answer in answers for token in answer], dtype=torch.long, device=device)
        found = F.log_softmax(heard.logits.float(), dim=-1).transpose(0, 1)
        # A transcript that is longer than its clip has frames is not learnt from.
        total = F.ctc_loss(
            found, targets, heard.frames.sum(1), lengths, blank=self.blank, reduction="sum", zero_infinity=True
        )
        return total / lengths.sum().clamp_min(1)


class Seq2SeqHead(_Spoken):
    """A decoder that is told the tokens before each token."""

    @property
    def end(self) -> int:
        """The token at the end."""
        return int(self.network.model.config.eos_token_id)

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens that every transcript begins with."""
        marks: Any = self.network.model.generation_config
        start = getattr(marks, "decoder_start_token_id", None) or self.network.model.config.decoder_start_token_id
        more = []
        if getattr(marks, "is_multilingual", False):
            more += [marks.lang_to_id[f"<|{self.network.language}|>"], marks.task_to_id["transcribe"]]
        if getattr(marks, "no_timestamps_token_id", None) is not None:
            more.append(marks.no_timestamps_token_id)
        return (int(start), *map(int, more))

    def run(self, model: Any, inputs: Inputs, answers: Sequence[Answer] | None) -> tuple[tuple[Tensor, ...], Any]:
        """As `Head`'s."""
        if answers is None:
            # The encoder alone: nobody asks for what a decoder would say.
            return model.get_encoder()(**inputs, output_hidden_states=True).hidden_states, None
        told, _ = self._told(answers, next(iter(inputs.values())).device)
        output = model(**inputs, decoder_input_ids=told, output_hidden_states=True, use_cache=False)
        return output.encoder_hidden_states, output.logits

    def _told(self, answers: Sequence[Answer], device: torch.device) -> tuple[Tensor, Tensor]:
        """What the decoder is told, and what it should say: (B, N) each, -1 where nothing is asked."""
        longest = len(self.prefix) + max(map(len, answers))
        told = torch.full((len(answers), longest), self.end)
        asked = torch.full((len(answers), longest), -1)
        for row, answer in enumerate(answers):
            given = torch.tensor([*self.prefix, *answer, self.end])
            told[row, : len(given) - 1] = given[:-1]
            asked[row, len(self.prefix) - 1 : len(given) - 1] = given[len(self.prefix) :]
        return told.to(device), asked.to(device)

    def counted(self, logits: Tensor | None, frames: Tensor, answers: Sequence[Answer] | None) -> Tensor | None:
        """As `Head`'s."""
        return None if answers is None else self._told(answers, frames.device)[1] >= 0

    def answers(self, model: Any, inputs: Inputs, seconds: float) -> list[Answer]:
        """By the class's own generate(), greedily."""
        limit = int(getattr(model.config, "max_target_positions", 10**6)) - len(self.prefix) - 1
        most = min(round(seconds * _TOKENS_PER_SECOND) + _MORE_TOKENS, limit)
        more: dict[str, Any] = {}
        if getattr(model.generation_config, "is_multilingual", False):
            more = {"language": self.network.language, "task": "transcribe"}
        found = generated(model, inputs, max_new_tokens=most, **more)
        return [self._said(row) for row in found.tolist()]

    def _said(self, row: Sequence[int]) -> Answer:
        start = len(self.prefix) if tuple(row[: len(self.prefix)]) == self.prefix else 0
        said = row[start:]
        return tuple(said[: said.index(self.end)] if self.end in said else said)

    def loss(self, model: Any, heard: Heard, answers: Sequence[Answer]) -> Tensor:
        """Nats a token, by teacher forcing."""
        assert heard.logits is not None
        _, asked = self._told(answers, heard.logits.device)
        return F.cross_entropy(heard.logits[asked >= 0].float(), asked[asked >= 0])


def generated(model: Any, inputs: Inputs, **settings: Any) -> Tensor:
    """Tokens (B, N), greedily."""
    kept = model.generation_config.max_length
    model.generation_config.max_length = None
    try:
        with quiet():
            return model.generate(**inputs, do_sample=False, num_beams=1, **settings)
    finally:
        model.generation_config.max_length = kept


class ClassHead(Head):
    """A class a clip."""

    @property
    def classes(self) -> dict[str, int]:
        """Numbers by name."""
        config: Any = self.network.model.config
        return {str(name): int(number) for name, number in config.label2id.items()}

    def encode(self, label: str) -> Answer:
        """As `Head`'s."""
        known = self.classes
        if label in known:
            return (known[label],)
        if label.isdecimal() and int(label) in known.values():
            return (int(label),)
        raise DataError("the head has no such class", got=repr(label), expected=listed(known))

    def decode(self, answer: Answer) -> str:
        """As `Head`'s."""
        config: Any = self.network.model.config
        return str(config.id2label[answer[0]])

    def answers(self, model: Any, inputs: Inputs, seconds: float) -> list[Answer]:
        """As `Head`'s."""
        heard = self.network.hear(model, inputs)
        assert heard.logits is not None
        return [(number,) for number in heard.logits.argmax(-1).tolist()]

    def loss(self, model: Any, heard: Heard, answers: Sequence[Answer]) -> Tensor:
        """Cross-entropy in nats."""
        assert heard.logits is not None
        return F.cross_entropy(heard.logits.float(), torch.tensor(answers, device=heard.logits.device)[:, 0])


class SpeakerHead(ClassHead):
    """X-vectors (Snyder et al. 2018), learnt with the additive margin of the speakers that the head knows."""

    # Their layers keep their widths where a cut does not mend them.
    fixed = ("tdnn",)

    def answers(self, model: Any, inputs: Inputs, seconds: float) -> list[Answer]:
        """As `Head`'s."""
        vectors = self.network.hear(model, inputs).logits
        assert vectors is not None
        near = F.normalize(vectors, dim=-1) @ F.normalize(model.objective.weight, dim=0)
        return [(number,) for number in near.argmax(-1).tolist()]

    def loss(self, model: Any, heard: Heard, answers: Sequence[Answer]) -> Tensor:
        """That of the class, in nats."""
        assert heard.logits is not None
        return model.objective(heard.logits.float(), torch.tensor(answers, device=heard.logits.device)[:, 0])

    def match(self, student: Heard, teacher: Heard, temperature: float) -> Tensor:
        """One minus the cosine of the two vectors: a temperature has no meaning here."""
        assert student.logits is not None
        assert teacher.logits is not None
        return (1 - F.cosine_similarity(student.logits.float(), teacher.logits.float(), dim=-1)).mean()


class FrameHead(ClassHead):
    """A class a frame; labels are `name:seconds name:seconds ...` from the start of a clip on."""

    def encode(self, label: str) -> Answer:
        """As `Head`'s."""
        answer: list[int] = []
        end = 0.0
        for part in label.split():
            name, colon, seconds = part.rpartition(":")
            try:
                end += float(seconds)
            except ValueError:
                colon = ""
            if not colon or not name:
                raise DataError("malformed labels of frames", got=repr(part), expected="name:seconds name:seconds ...")
            answer += super().encode(name) * (round(end * LABELS_PER_SECOND) - len(answer))
        if not answer:
            raise DataError("no labels of frames", got=repr(label), expected="name:seconds name:seconds ...")
        return tuple(answer)

    def decode(self, answer: Answer) -> str:
        """As `Head`'s."""
        config: Any = self.network.model.config
        return " ".join(str(config.id2label[number]) for number in answer)

    def counted(self, logits: Tensor | None, frames: Tensor, answers: Sequence[Answer] | None) -> Tensor | None:
        """As `Head`'s."""
        return frames

    def answers(self, model: Any, inputs: Inputs, seconds: float) -> list[Answer]:
        """As `Head`'s."""
        heard = self.network.hear(model, inputs)
        assert heard.logits is not None
        best = heard.logits.argmax(-1)
        return [tuple(row[valid].tolist()) for row, valid in zip(best, heard.frames, strict=True)]

    def loss(self, model: Any, heard: Heard, answers: Sequence[Answer]) -> Tensor:
        """Cross-entropy in nats a frame."""
        assert heard.logits is not None
        targets = [stretched(answer, int(valid.sum())) for answer, valid in zip(answers, heard.frames, strict=True)]
        return F.cross_entropy(heard.logits[heard.frames].float(), torch.cat(targets).to(heard.logits.device))


def stretched(answer: Answer, frames: int) -> Tensor:
    """Classes of equal spans of a clip -> the class in the middle of each of its frames (T,)."""
    places = ((torch.arange(frames) + 0.5) * (len(answer) / frames)).long().clamp_max(len(answer) - 1)
    return torch.tensor(answer)[places]


_HEADS: dict[str, type[Head]] = {
    "distill": Head,
    "ctc": CTCHead,
    "seq2seq": Seq2SeqHead,
    "classify": ClassHead,
    "speaker": SpeakerHead,
    "frames": FrameHead,
}


def head_for(network: Owner, task: str) -> Head:
    """The head of a network for a task."""
    return _HEADS[task](network)
