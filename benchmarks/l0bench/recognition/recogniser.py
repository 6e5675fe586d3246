"""Whisper with its positions cut to windows of ten seconds, and what its untouched decoder makes of encoder states.

Legend: B windows, T frames (500), D width (384), M mel bins (80), F mel frames (1000), N tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l0bench.recognition.prompt_sets import SECONDS
from l0bench.recognition.scoring import words

_IGNORED = -100
MOST_NEW_TOKENS = 100
"""A transcript of 25 words has about 35. A decoder that loops is stopped here, which bounds plain word errors."""


class Recogniser:
    """A transformers model whose encoder is pruned while its decoder stays as it is.

    Args:
        model: A WhisperForConditionalGeneration; its encoder is cut to ten seconds, its decoder frozen.
        tokenizer: Turns text into numbers and back.
        extractor: Turns samples into log-mel spectra of ten seconds.
        prefix: Tokens that every transcript begins with.
    """

    def __init__(self, model: Any, tokenizer: Any, extractor: Any, *, prefix: Sequence[int]) -> None:
        self.model, self.tokenizer, self.extractor, self.prefix = model.eval(), tokenizer, extractor, list(prefix)
        self.end = int(model.config.eos_token_id)
        cut_positions(model.model.encoder, frames=50 * SECONDS)
        model.config.max_source_positions = 50 * SECONDS
        model.model.decoder.requires_grad_(False)
        model.generation_config.max_length = None
        model.generation_config.max_new_tokens = MOST_NEW_TOKENS

    @classmethod
    def open(cls, folder: Path) -> "Recogniser":
        """Open what real_material/whisper_tiny.py made."""
        from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor, WhisperForConditionalGeneration
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        model = WhisperForConditionalGeneration.from_pretrained(folder)
        marks: Any = model.generation_config
        return cls(
            model,
            PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
            WhisperFeatureExtractor.from_pretrained(folder, chunk_length=SECONDS),
            prefix=[marks.decoder_start_token_id, marks.no_timestamps_token_id],
        )

    @property
    def encoder(self) -> nn.Module:
        """The pre-trained one."""
        return self.model.model.encoder

    def features(self, samples: Sequence[np.ndarray]) -> Tensor:
        """Log-mel spectra (B, M, F) of int16 samples at 16 kHz."""
        sounds = [sound.astype(np.float32) / 2**15 for sound in samples]
        return self.extractor(sounds, sampling_rate=16_000, return_tensors="pt").input_features

    def tokens(self, text: str) -> list[int]:
        """Those of a transcript, with its end; Whisper's begin with a space."""
        return [*self.tokenizer(" " + text, add_special_tokens=False).input_ids, self.end]

    def nats(self, states: Tensor, transcripts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of true transcripts by teacher forcing.

        Args:
            states: (B, T, D) what an encoder made.
            transcripts: The tokens of each window.

        Returns:
            The sum over each window's tokens (B,), differentiable, and their number (B,).
        """
        logits, labels, rows = self.logits(states, transcripts)
        losses = F.cross_entropy(logits, labels, reduction="none")
        nothing = losses.new_zeros(len(transcripts))
        return nothing.index_add(0, rows, losses), torch.bincount(rows, minlength=len(transcripts))

    def logits(self, states: Tensor, transcripts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder expects at each token of the transcripts, told all before it.

        Args:
            states: (B, T, D) what an encoder made.
            transcripts: The tokens of each window.

        Returns:
            Logits (N, V), float32 and differentiable, the tokens that come (N,), and the windows that they are of (N,).
        """
        longest = len(self.prefix) + max(map(len, transcripts)) - 1
        inputs = torch.full((len(transcripts), longest), self.end)
        labels = torch.full((len(transcripts), longest), _IGNORED)
        for row, tokens in enumerate(transcripts):
            given = torch.tensor([*self.prefix, *tokens])
            inputs[row, : len(given) - 1] = given[:-1]
            labels[row, len(self.prefix) - 1 : len(given) - 1] = given[len(self.prefix) :]
        decoder = self.model.model.decoder
        hidden = decoder(input_ids=inputs, encoder_hidden_states=states, use_cache=False).last_hidden_state
        # The vocabulary is the widest part by far: only where a token is asked for.
        asked = labels != _IGNORED
        return self.model.proj_out(hidden[asked]).float(), labels[asked], asked.nonzero()[:, 0]

    @torch.no_grad()
    def heard(self, states: Tensor) -> list[list[str]]:
        """Words of each window, by greedy decoding with the model's own `generate`."""
        from transformers.modeling_outputs import BaseModelOutput

        mask = torch.ones(states.shape[:2], dtype=torch.long)
        output = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
        )
        return [words(text) for text in self.tokenizer.batch_decode(output, skip_special_tokens=True)]


def cut_positions(encoder: Any, *, frames: int) -> None:
    """Let an encoder hear fewer frames than it was trained on: the first of its positions."""
    positions = encoder.embed_positions
    left = nn.Embedding(frames, positions.embedding_dim, _weight=positions.weight.detach()[:frames].clone())
    encoder.embed_positions = left.requires_grad_(False)
    encoder.max_source_positions = encoder.config.max_source_positions = frames
