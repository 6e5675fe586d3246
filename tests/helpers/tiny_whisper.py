"""A randomly initialised Whisper of two layers of 32, and a recogniser around it that hears noise."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from l0bench.recognition.kept_states import kept
from l0bench.recognition.problem import Sets
from l0bench.recognition.prompt_sets import Window
from l0bench.recognition.recogniser import Recogniser

VOCABULARY, END = 40, 39


def tiny_whisper() -> Any:
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=8,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=600,
        max_target_positions=120,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=38,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=38,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        no_timestamps_token_id=37,
        is_multilingual=False,
        return_timestamps=False,
    )
    return model.eval()


class Letters:
    """A tokenizer of single letters."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=[ord(letter) - ord("a") for letter in text if letter.isalpha()])

    def batch_decode(self, rows: torch.Tensor, *, skip_special_tokens: bool) -> list[str]:
        return [" ".join(chr(ord("a") + i) for i in row if i < 26) for row in rows.tolist()]


def tiny_recogniser(*, most_new_tokens: int = 6) -> Recogniser:
    from transformers import WhisperFeatureExtractor
    from transformers.utils import logging

    logging.set_verbosity_error()
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=10)
    recogniser = Recogniser(tiny_whisper(), Letters(), extractor, prefix=[38, 37])
    recogniser.model.generation_config.max_new_tokens = most_new_tokens
    return recogniser


def tiny_sets(recogniser: Recogniser, folder: Path) -> Sets:
    generator = np.random.default_rng(0)

    def windows(count: int, name: str) -> list[Window]:
        return [
            Window(
                name=f"{name}{i}",
                samples=(3000 * generator.standard_normal(16_000)).astype(np.int16),
                text=" ".join("abcdefgh"[j] for j in generator.integers(8, size=4)),
            )
            for i in range(count)
        ]

    return Sets(
        **{
            name: kept(name, windows(count, name), recogniser, folder)
            for name, count in (("pool", 8), ("labelled", 4), ("validation", 3), ("test", 4))
        }
    )
