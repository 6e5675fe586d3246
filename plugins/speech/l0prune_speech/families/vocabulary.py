"""Text to the numbers of a head and back, by the files of its tokenizer."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from l0prune import DataError, listed
from l0prune_speech.families.network import Answer

_DELIMITER = "|"


class Vocabulary(Protocol):
    """Text and numbers."""

    def encode(self, text: str) -> Answer:
        """Numbers of a transcript; raises a `DataError` where nothing of it is in the vocabulary."""
        ...

    def decode(self, answer: Answer) -> str:
        """Text of numbers, without marks."""
        ...

    def remarks(self) -> tuple[str, ...]:
        """What was left out of transcripts so far."""
        ...


@dataclass
class Characters:
    """A vocabulary of characters, as transformers' Wav2Vec2CTCTokenizer has it.

    Args:
        numbers: By character or mark.
        delimiter: Stands for a space.
    """

    numbers: Mapping[str, int]
    delimiter: str = _DELIMITER
    strange: Counter[str] = field(default_factory=Counter)
    """Characters that it lacks."""

    def __post_init__(self) -> None:
        letters = [mark for mark in self.numbers if len(mark) == 1]
        lower, upper = (any(getattr(letter, case)() for letter in letters) for case in ("islower", "isupper"))
        # Transcripts are written as the vocabulary is, where it has one case alone.
        self._case = str.upper if upper and not lower else str.lower if lower and not upper else str
        self._marks = {number: mark for mark, number in self.numbers.items()}

    def encode(self, text: str) -> Answer:
        """As `Vocabulary`'s."""
        text = self._case(" ".join(text.split()))
        wanted = [self.delimiter if character == " " else character for character in text]
        answer = tuple(self.numbers[character] for character in wanted if character in self.numbers)
        self.strange.update(character for character in wanted if character not in self.numbers and character != " ")
        if text and not answer:
            raise DataError(
                "nothing of the transcript is in the vocabulary",
                got=repr(text[:40]),
                expected=listed([mark for mark in self.numbers if len(mark) == 1], 40),
            )
        return answer

    def decode(self, answer: Answer) -> str:
        """As `Vocabulary`'s."""
        marks = (self._marks.get(number, "") for number in answer)
        text = "".join(" " if mark == self.delimiter else mark for mark in marks if len(mark) == 1)
        return " ".join(text.split())

    def remarks(self) -> tuple[str, ...]:
        """As `Vocabulary`'s."""
        return _strange(self.strange)


@dataclass
class Pieces:
    """A vocabulary of pieces of words, in a `tokenizer.json`.

    Args:
        tokenizer: transformers' around it.
        spoken: What a transcript is turned into first.
    """

    tokenizer: Any
    spoken: Any
    strange: Counter[str] = field(default_factory=Counter)

    def encode(self, text: str) -> Answer:
        """As `Vocabulary`'s."""
        text = " ".join(text.split())
        numbers = self.tokenizer(self.spoken(text), add_special_tokens=False).input_ids
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in numbers:
            alone = {c: self.tokenizer(c, add_special_tokens=False).input_ids for c in dict.fromkeys(text) if c != " "}
            self.strange.update(c for c in text if unknown in alone.get(c, ()))
            numbers = [number for number in numbers if number != unknown]
            if not numbers:
                raise DataError("nothing of the transcript is in the vocabulary", got=repr(text[:40]))
        return tuple(numbers)

    def decode(self, answer: Answer) -> str:
        """As `Vocabulary`'s."""
        return " ".join(self.tokenizer.decode(list(answer), skip_special_tokens=True).split())

    def remarks(self) -> tuple[str, ...]:
        """As `Vocabulary`'s."""
        return _strange(self.strange)


def _strange(found: Counter[str]) -> tuple[str, ...]:
    if not found:
        return ()
    names = listed([f"{character!r} ({count})" for character, count in found.most_common()])
    return (f"left out of transcripts, {found.total()} characters outside the vocabulary: {names}",)


def vocabulary_of(folder: Path, spoken: Any, size: int) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Args:
        folder: Holds its tokenizer.
        spoken: What pieces are made of: a function of the transcript.
        size: Of the head's vocabulary.

    Raises:
        DataError: There is no tokenizer, it is damaged, or it has more numbers than the head.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        from transformers import PreTrainedTokenizerFast

        try:
            stated = _read(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
            unknown = stated.get("unk_token") if isinstance(stated.get("unk_token"), str) else None
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), unk_token=unknown)
        except Exception as error:
            raise DataError("damaged tokenizer", where=path, got=" ".join(str(error).split())[:200]) from error
        most, found = max(tokenizer.get_vocab().values(), default=0), Pieces(tokenizer, spoken)
    elif (path := folder / "vocab.json").is_file():
        numbers, stated = _read(path), {}
        if (folder / "tokenizer_config.json").is_file():
            stated = _read(folder / "tokenizer_config.json")
        if numbers and all(isinstance(value, dict) for value in numbers.values()):
            # One for each language (MMS).
            numbers = numbers[stated.get("target_lang") or next(iter(numbers))]
        if not numbers or not all(isinstance(number, int) for number in numbers.values()):
            raise DataError("damaged tokenizer", where=path, expected="numbers by character")
        most, found = max(numbers.values()), Characters(numbers, str(stated.get("word_delimiter_token") or _DELIMITER))
    else:
        hint = "copy the tokenizer's files beside the weights, or give audio without transcripts"
        raise DataError("no tokenizer", where=folder, expected="tokenizer.json or vocab.json", hint=hint)
    if most >= size:
        raise DataError(
            "the vocabulary does not fit the head", where=path, got=f"{most + 1} tokens", expected=f"at most {size}"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("damaged tokenizer", where=path, got=error) from error
    if not isinstance(content, dict):
        raise DataError("damaged tokenizer", where=path, got=type(content).__name__)
    return content
