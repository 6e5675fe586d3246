"""Networks of sound of the zoo, in small configurations with random weights."""

from typing import Any

import torchaudio
import transformers
from torch import nn, tensor

from zoo_networks.inputs import MELS, TOKENS, WAVES, Network, noise
from zoo_networks.text import SIDES, read

SPEECH: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "conv_dim": (32,) * 3, "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "num_conv_pos_embeddings": 16,
}  # fmt: skip


def whisper() -> nn.Module:
    config = transformers.WhisperConfig(
        vocab_size=100, d_model=64, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128,
        num_mel_bins=20, max_source_positions=30, pad_token_id=0,
    )  # fmt: skip
    return transformers.models.whisper.modeling_whisper.WhisperEncoder(config)


def moonshine() -> nn.Module:
    sides = ("encoder", "decoder")
    counts = {
        f"{side}_{what}": n for side in sides for what, n in (("num_hidden_layers", 2), ("num_attention_heads", 4))
    }
    config = transformers.MoonshineConfig(vocab_size=100, hidden_size=64, intermediate_size=128, **counts)
    return transformers.MoonshineForConditionalGeneration(config)


SAID: dict[str, Any] = {"input_values": WAVES.repeat(1, 2), "decoder_input_ids": TOKENS, "use_cache": False}

SOUND_NETWORKS: dict[str, Network] = {
    "HuBERT with a head": Network(
        lambda: transformers.HubertForCTC(transformers.HubertConfig(**SPEECH, vocab_size=32)), (WAVES,)
    ),
    "Whisper encoder": Network(whisper, (noise(2, 20, 60),)),
    "HuBERT (transformers)": Network(lambda: transformers.HubertModel(transformers.HubertConfig(**SPEECH)), (WAVES,)),
    "WavLM (transformers)": Network(lambda: transformers.WavLMModel(transformers.WavLMConfig(**SPEECH)), (WAVES,)),
    "Conformer (torchaudio)": Network(
        lambda: torchaudio.models.Conformer(32, 4, 64, 2, 15),
        (noise(2, 20, 32), tensor([20, 15])),
    ),
    "Moonshine": Network(moonshine, SAID),
    "Emformer": Network(
        lambda: torchaudio.models.Emformer(64, 4, 128, 2, 4, right_context_length=1),
        (noise(2, 17, 64), tensor([16, 12])),
    ),
    "Whisper": Network(
        read("Whisper", "ForConditionalGeneration", num_mel_bins=20, max_source_positions=30, max_target_positions=32,
             **{k: v for k, v in SIDES.items() if k != "max_position_embeddings"}),
        {"input_features": MELS, "decoder_input_ids": TOKENS[:, :9], "use_cache": False},
    ),
    "wav2vec 2.0 with a head": Network(read("Wav2Vec2", "ForCTC", **SPEECH, vocab_size=32), (WAVES,)),
    "wav2vec 2.0 Conformer": Network(read("Wav2Vec2Conformer", "ForCTC", **SPEECH, vocab_size=32), (WAVES,)),
    "data2vec audio": Network(read("Data2VecAudio", "ForCTC", **SPEECH, vocab_size=32), (WAVES,)),
    "SEW": Network(read("SEW", "ForCTC", **SPEECH, squeeze_factor=2, vocab_size=32), (WAVES,)),
    "WavLM with a head": Network(read("WavLM", "ForCTC", **SPEECH, vocab_size=32), (WAVES,)),
    "AST": Network(
        read("AST", "ForAudioClassification", max_length=64, num_mel_bins=32,
             **{k: v for k, v in SPEECH.items() if not k.startswith(("conv", "num_conv"))}),
        (noise(2, 64, 32),),
    ),
    "Speech2Text": Network(
        read("Speech2Text", "ForConditionalGeneration", input_feat_per_channel=20, conv_channels=32,
             max_source_positions=64, max_target_positions=32,
             **{k: v for k, v in SIDES.items() if k != "max_position_embeddings"}),
        {"input_features": MELS.transpose(1, 2), "decoder_input_ids": TOKENS[:, :9], "use_cache": False},
    ),
    "EnCodec encoder": Network(
        lambda: transformers.EncodecModel(
            transformers.EncodecConfig(num_filters=8, hidden_size=16, codebook_dim=16, upsampling_ratios=[4, 2])
        ).encoder,
        (WAVES[:, None, :512],),
    ),
    "Wav2Letter": Network(lambda: torchaudio.models.Wav2Letter(10, "mfcc", 20), (MELS,)),
    "Conv-TasNet": Network(
        lambda: torchaudio.models.ConvTasNet(2, 16, 16, 3, 16, 32, 2, 2), (WAVES[:, None, :1024],)
    ),
    "DeepSpeech": Network(lambda: torchaudio.models.DeepSpeech(20, 64, 10), (MELS.transpose(1, 2)[:, None],)),
}  # fmt: skip
