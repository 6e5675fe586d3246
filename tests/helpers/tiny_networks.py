"""Small random checkpoints of transformers' own classes, in folders as save_pretrained makes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

WAVEFORM: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "conv_dim": [6] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 12,
    "pad_token_id": 0,
}
LAYERED = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WHISPER: dict[str, Any] = {
    "vocab_size": 40,
    "num_mel_bins": 8,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_source_positions": 200,
    "max_target_positions": 60,
    "bos_token_id": 37,
    "eos_token_id": 37,
    "pad_token_id": 37,
    "decoder_start_token_id": 38,
}
CHARACTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEF'")


def _waveform(family: str, head: str, **changes: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        return getattr(transformers, f"{family}{head}")(getattr(transformers, f"{family}Config")(**WAVEFORM | changes))

    return make


def whisper(head: str = "ForConditionalGeneration", **changes: Any) -> Any:
    import transformers

    model = getattr(transformers, f"Whisper{head}")(transformers.WhisperConfig(**WHISPER | changes))
    marks = {name: WHISPER[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")}
    settings = transformers.GenerationConfig(
        **marks, no_timestamps_token_id=39, is_multilingual=False, return_timestamps=False
    )
    if head == "ForConditionalGeneration":
        model.generation_config = settings
    return model


def _parakeet() -> Any:
    import transformers

    encoder = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "subsampling_conv_channels": 6,
        "num_mel_bins": 80,
    }
    return transformers.ParakeetForCTC(
        transformers.ParakeetCTCConfig(vocab_size=12, pad_token_id=11, encoder_config=encoder)
    )


def _w2v_bert() -> Any:
    import transformers

    changes = {k: v for k, v in WAVEFORM.items() if k != "conv_dim"}
    return transformers.Wav2Vec2BertForCTC(
        transformers.Wav2Vec2BertConfig(**changes, feature_projection_input_dim=160, output_hidden_size=16)
    )


def _moonshine() -> Any:
    import transformers

    return transformers.MoonshineForConditionalGeneration(
        transformers.MoonshineConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            encoder_num_hidden_layers=2,
            decoder_num_hidden_layers=2,
            encoder_num_attention_heads=2,
            decoder_num_attention_heads=2,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            pad_token_id=2,
        )
    )


XVECTOR = {"tdnn_dim": [8, 8, 12], "tdnn_kernel": [5, 3, 1], "tdnn_dilation": [1, 2, 1], "xvector_output_dim": 8}
NETWORKS: dict[str, tuple[str, Callable[[], Any]]] = {
    "hubert": ("ctc", _waveform("Hubert", "ForCTC")),
    "hubert-layered": ("ctc", _waveform("Hubert", "ForCTC", **LAYERED)),
    "hubert-batch-norm": ("ctc", _waveform("Hubert", "ForCTC", conv_pos_batch_norm=True)),
    "hubert-plain": ("ctc", _waveform("Hubert", "ForCTC", feat_proj_layer_norm=False, hidden_act="gelu_new")),
    "hubert-encoder": ("distill", _waveform("Hubert", "Model", conv_pos_batch_norm=True)),
    "wav2vec2": ("ctc", _waveform("Wav2Vec2", "ForCTC")),
    "wav2vec2-layered": ("ctc", _waveform("Wav2Vec2", "ForCTC", **LAYERED)),
    "wav2vec2-adapter": ("ctc", _waveform("Wav2Vec2", "ForCTC", **LAYERED, adapter_attn_dim=4)),
    "wavlm": ("ctc", _waveform("WavLM", "ForCTC")),
    "unispeech": ("ctc", _waveform("UniSpeech", "ForCTC")),
    "unispeech-sat": ("ctc", _waveform("UniSpeechSat", "ForCTC")),
    "data2vec": ("ctc", _waveform("Data2VecAudio", "ForCTC", conv_pos_kernel_size=3)),
    "sew": ("ctc", _waveform("SEW", "ForCTC", conv_dim=[6] * 13)),
    "conformer": ("ctc", _waveform("Wav2Vec2Conformer", "ForCTC")),
    "conformer-x-vector": ("speaker", _waveform("Wav2Vec2Conformer", "ForXVector", **XVECTOR, num_labels=3)),
    "w2v-bert": ("ctc", _w2v_bert),
    "parakeet": ("ctc", _parakeet),
    "whisper": ("seq2seq", whisper),
    "moonshine": ("seq2seq", _moonshine),
    "classes": ("classify", _waveform("Wav2Vec2", "ForSequenceClassification", classifier_proj_size=8, num_labels=3)),
    "whisper-classes": ("classify", lambda: whisper("ForAudioClassification", classifier_proj_size=8, num_labels=3)),
    "x-vector": ("speaker", _waveform("Wav2Vec2", "ForXVector", **XVECTOR, num_labels=3)),
    "frames": ("frames", _waveform("Wav2Vec2", "ForAudioFrameClassification", num_labels=3)),
}
"""The task of each network's head, and how it is made."""


def skip_where_missing(name: str) -> None:
    """Skip a test of Parakeet where transformers needs librosa for its features, as older versions do."""
    if name == "parakeet":
        import transformers

        try:
            transformers.ParakeetFeatureExtractor()
        except ImportError as error:
            pytest.skip(" ".join(str(error).split()))


def save_network(name: str, folder: Path, *, tokenizer: bool = True) -> Path:
    """Write one of `NETWORKS`, from seed 0, with the settings of its feature extractor."""
    from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor
    from transformers.utils import logging

    logging.disable_progress_bar()
    task, make = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(folder)
    layered = getattr(model.config, "feat_extract_norm", "group") == "layer"
    if name.startswith("whisper"):
        WhisperFeatureExtractor(feature_size=8, chunk_length=4).save_pretrained(folder)
    elif name not in ("w2v-bert", "parakeet"):
        Wav2Vec2FeatureExtractor(
            do_normalize=layered, return_attention_mask=layered or name == "moonshine"
        ).save_pretrained(folder)
    if tokenizer and task == "ctc":
        numbers = {mark: number for number, mark in enumerate(CHARACTERS)}
        (folder / "vocab.json").write_text(json.dumps(numbers))
    if tokenizer and task == "seq2seq":
        save_pieces(folder)
    return folder


MARKS = "transcribe translate startofprev startoflm nospeech".split()
"""Marks of Whisper's tokenizer from number 30 on."""


def save_pieces(folder: Path) -> None:
    """A tokenizer whose words are single letters, with Whisper's marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {chr(ord("a") + number): number + 3 for number in range(26)}
    numbers = {mark: number for number, mark in enumerate(MARKS, 30)}
    numbers |= {"endoftext": 37, "startoftranscript": 38, "notimestamps": 39}
    marks = {f"<|{mark}|>": number for mark, number in numbers.items()}
    tokenizer = Tokenizer(models.WordLevel({**words, "[UNK]": 29, **marks}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"unk_token": "[UNK]"}))
