"""Networks of text of the zoo, in small configurations with random weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from zoo_networks.inputs import BOTH, IDS, TEXT, TOKENS, Network, noise

SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100,
    "pad_token_id": 0,
}  # fmt: skip
FEW: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 16}
OLD: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 128}
SIDES: dict[str, Any] = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 32, "vocab_size": 100, "pad_token_id": 0,
}  # fmt: skip
RELATIVE: dict[str, Any] = {
    "vocab_size": 100, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "pad_token_id": 0,
    "decoder_start_token_id": 0,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


class Recurrent(nn.Module):
    """A bidirectional LSTM over embeddings, its last state classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.lstm = nn.LSTM(24, 32, num_layers=2, bidirectional=True, batch_first=True)
        self.classify = nn.Linear(64, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classify(self.lstm(self.embed(tokens))[0].mean(1))


class Encoder(nn.Module):
    """nn.TransformerEncoder with a classifier on top."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.encoder, self.classify = nn.TransformerEncoder(layer, 2), nn.Linear(64, 10)
        self.embed = nn.Linear(8, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.encoder(self.embed(x)).mean(1))


class Expert(nn.Module):
    """Two layers and a gate, as experts of language models are."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(width, inner), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class ListedExperts(nn.Module):
    """Experts in a list, each of which is given the tokens that a router picks it for."""

    def __init__(self, width: int = 32, inner: int = 48, count: int = 4) -> None:
        super().__init__()
        self.embed, self.norm, self.classify = nn.Embedding(100, width), nn.LayerNorm(width), nn.Linear(width, 10)
        self.router, self.experts = nn.Linear(width, count), nn.ModuleList(Expert(width, inner) for _ in range(count))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        rows = self.norm(x).flatten(0, 1)
        weights, picked = self.router(rows).softmax(-1).topk(2, -1)
        mixed = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            row, place = torch.where(picked == number)
            mixed.index_add_(0, row, expert(rows[row]) * weights[row, place, None])
        return self.classify(x + mixed.view_as(x))


class LowRank(nn.Module):
    """A linear layer with an update of low rank beside it, or in its weight."""

    def __init__(self, layer: nn.Linear, rank: int = 4, *, merged: bool) -> None:
        super().__init__()
        self.base_layer, self.merged = layer, merged
        self.lora_A = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            weight = self.base_layer.weight + 2.0 * self.lora_B.weight @ self.lora_A.weight
            return nn.functional.linear(x, weight, self.base_layer.bias)
        return self.base_layer(x) + 2.0 * self.lora_B(self.lora_A(x))


class WeightNormed(LowRank):
    """The same with the length of each row of the sum in a parameter of its own (DoRA)."""

    def __init__(self, layer: nn.Linear, rank: int = 4) -> None:
        super().__init__(layer, rank, merged=False)
        self.magnitude = nn.Parameter(layer.weight.detach().norm(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        update = self.lora_B(self.lora_A(torch.eye(self.lora_A.weight.shape[1]))).T
        length = torch.linalg.norm(self.base_layer.weight + 2.0 * update, dim=1)
        scale = self.magnitude / length
        return scale * self.base_layer(x) + scale * 2.0 * self.lora_B(self.lora_A(x))


def with_low_rank(make: Callable[[nn.Linear], nn.Module]) -> Callable[[], nn.Module]:
    """A language model, each of whose linear layers in a block has an update."""

    def made() -> nn.Module:
        model = language("Llama", num_key_value_heads=2)()
        for path, layer in [*model.named_modules()]:
            if isinstance(layer, nn.Linear) and ".layers." in path:
                holder, _, name = path.rpartition(".")
                setattr(model.get_submodule(holder), name, make(layer))
        return model

    return made


def read(name: str, suffix: str = "ForCausalLM", **sizes: Any) -> Callable[[], nn.Module]:
    """A network of transformers, by the name of its family."""

    def make() -> nn.Module:
        config = getattr(transformers, f"{name}Config")(**sizes)
        return getattr(transformers, f"{name}{suffix}")(config)

    return make


def language(name: str, **more: Any) -> Callable[[], nn.Module]:
    """A causal language model of transformers, by the name of its family."""

    def make() -> nn.Module:
        config = (
            getattr(transformers, f"{name.removesuffix('Text')}TextConfig", None) if name.endswith("Text") else None
        )
        config = config or getattr(transformers, f"{name}Config")
        return getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")(config(**{**SMALL, **more}))

    return make


def encoder(name: str, **more: Any) -> Callable[[], nn.Module]:
    return read(name, "ForSequenceClassification", **{**SMALL, **more})


def llama() -> nn.Module:
    config = transformers.LlamaConfig(**{**SMALL, "num_attention_heads": 8, "num_key_value_heads": 2})
    return transformers.LlamaForCausalLM(config)


def deepseek() -> nn.Module:
    return language(
        "DeepseekV3", n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1, kv_lora_rank=16,
        q_lora_rank=24, qk_rope_head_dim=8, v_head_dim=16, qk_nope_head_dim=16, moe_intermediate_size=32,
        first_k_dense_replace=1,
    )()  # fmt: skip


TEXT_NETWORKS: dict[str, Network] = {
    "BERT": Network(lambda: transformers.BertModel(transformers.BertConfig(**SMALL)), IDS),
    "GPT-2": Network(
        lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=4)),
        TEXT,
    ),
    "Llama (grouped queries)": Network(llama, TEXT),
    "Llama (one key/value head)": Network(language("Llama", num_key_value_heads=1), TEXT),
    "Gemma": Network(language("Gemma", **FEW), TEXT),
    "Gemma 3": Network(language("Gemma3Text", **FEW), TEXT),
    "OLMo": Network(language("Olmo"), TEXT),
    "Falcon": Network(language("Falcon"), TEXT),
    "Phi-3": Network(language("Phi3", num_key_value_heads=2), TEXT),
    "Bloom": Network(language("Bloom", n_layer=2, n_head=4), TEXT),
    "Mixtral": Network(language("Mixtral", num_key_value_heads=2, num_local_experts=4), TEXT),
    "Qwen3-MoE": Network(language("Qwen3Moe", **FEW, **EXPERTS), TEXT),
    "GPT-OSS": Network(language("GptOss", **FEW, num_local_experts=4, num_experts_per_tok=2), TEXT),
    "DeepSeek-V3": Network(deepseek, TEXT),
    "Mamba": Network(language("Mamba", state_size=8), TEXT),
    "FalconMamba": Network(language("FalconMamba", state_size=8), TEXT),
    "GPT-Neo": Network(
        read("GPTNeo", vocab_size=100, hidden_size=64, num_layers=2, num_heads=4, intermediate_size=128, window_size=8,
             attention_types=[[["global", "local"], 1]], max_position_embeddings=64), TEXT
    ),
    "T5": Network(read("T5", "ForConditionalGeneration", **RELATIVE), BOTH),
    "UMT5": Network(read("UMT5", "ForConditionalGeneration", **RELATIVE), BOTH),
    "Experts in a list": Network(ListedExperts, (TOKENS,)),
    "Low-rank updates, beside": Network(with_low_rank(partial(LowRank, merged=False)), TEXT),
    "Low-rank updates, merged": Network(with_low_rank(partial(LowRank, merged=True)), TEXT),
    "Low-rank updates, weight-normed": Network(with_low_rank(WeightNormed), TEXT),
    "nn.TransformerEncoder": Network(Encoder, (noise(2, 9, 8),)),
    "LSTM classifier": Network(Recurrent, (TOKENS % 50,)),
    "RoBERTa": Network(encoder("Roberta"), IDS),
    "DistilBERT": Network(
        read("DistilBert", "ForSequenceClassification", vocab_size=100, dim=64, n_layers=2, n_heads=4, hidden_dim=128),
        IDS,
    ),
    "ALBERT": Network(encoder("Albert", embedding_size=32), IDS),
    "ELECTRA": Network(encoder("Electra", embedding_size=32), IDS),
    "DeBERTa-v2": Network(encoder("DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"]), IDS),
    "MPNet": Network(encoder("MPNet"), IDS),
    "ModernBERT": Network(encoder("ModernBert"), IDS),
    "XLNet": Network(
        read("XLNet", "ForSequenceClassification", vocab_size=100, d_model=64, n_layer=2, n_head=4, d_inner=128), IDS
    ),
    "OPT": Network(language("OPT", ffn_dim=128, word_embed_proj_dim=64), TEXT),
    "GPT-NeoX": Network(language("GPTNeoX"), TEXT),
    "GPT-J": Network(read("GPTJ", vocab_size=100, rotary_dim=8, **OLD), TEXT),
    "MPT": Network(read("Mpt", vocab_size=100, d_model=64, n_layers=2, n_heads=4), TEXT),
    "BigCode": Network(read("GPTBigCode", vocab_size=100, **OLD), TEXT),
    "Mistral": Network(language("Mistral", **FEW), TEXT),
    "Qwen2": Network(language("Qwen2", num_key_value_heads=2), TEXT),
    "Qwen3": Network(language("Qwen3", **FEW), TEXT),
    "Gemma 2": Network(language("Gemma2", **FEW), TEXT),
    "Phi": Network(language("Phi"), TEXT),
    "StableLM": Network(language("StableLm", num_key_value_heads=2), TEXT),
    "Cohere": Network(language("Cohere", num_key_value_heads=2), TEXT),
    "OLMo 2": Network(language("Olmo2", num_key_value_heads=2), TEXT),
    "Granite": Network(language("Granite", num_key_value_heads=2), TEXT),
    "StarCoder2": Network(language("Starcoder2", num_key_value_heads=2), TEXT),
    "Nemotron": Network(language("Nemotron", num_key_value_heads=2), TEXT),
    "GLM": Network(language("Glm", **FEW), TEXT),
    "SmolLM3": Network(language("SmolLM3", num_key_value_heads=2), TEXT),
    "OLMoE": Network(language("Olmoe", num_experts=4, num_experts_per_tok=2), TEXT),
    "Qwen2-MoE": Network(
        language("Qwen2Moe", **EXPERTS, num_key_value_heads=2, shared_expert_intermediate_size=32), TEXT
    ),
    "Granite-MoE": Network(language("GraniteMoe", num_local_experts=4, num_experts_per_tok=2), TEXT),
    "PhiMoE": Network(language("Phimoe", num_key_value_heads=2, num_local_experts=4), TEXT),
    "Qwen3-Next": Network(
        language("Qwen3Next", **FEW, **EXPERTS, shared_expert_intermediate_size=32, linear_num_value_heads=4,
                 linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=16,
                 layer_types=["linear_attention", "full_attention"]), TEXT
    ),
    "Mamba-2": Network(language("Mamba2", state_size=8, num_heads=8, head_dim=16, n_groups=2, chunk_size=8), TEXT),
    "RecurrentGemma": Network(language("RecurrentGemma", lru_width=64, attention_window_size=8, **FEW), TEXT),
    "RWKV": Network(read("Rwkv", vocab_size=100, hidden_size=64, attention_hidden_size=64, num_hidden_layers=2,
                  intermediate_size=128), TEXT),
    "BART": Network(read("Bart", "ForConditionalGeneration", **SIDES), BOTH),
    "Marian": Network(read("Marian", "MTModel", **SIDES, decoder_start_token_id=1), BOTH),
    "Pegasus": Network(read("Pegasus", "ForConditionalGeneration", **SIDES), BOTH),
}  # fmt: skip
