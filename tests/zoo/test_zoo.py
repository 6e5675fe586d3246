"""Well-known architectures with random weights: what discovery reaches in each, and that every cut is right."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchaudio
import torchvision
import transformers
from random_plans import random_cut
from torch import Tensor, nn
from torchvision.models import segmentation

from l0prune import GatedModel, RemovalPlan, load, save
from l0prune.discovery.found import Discovery
from l0prune.discovery.search import discover
from l0prune.measuring.count import macs
from l0prune.proof.exactness import relative_difference
from l0prune.proof.trials import find_faults
from l0prune.pruner import ANY_MODEL_TOLERANCE
from l0prune.pruner.sizing import sized_where_needed
from l0prune.size.macs import mac_size


class UNet(nn.Module):
    """Two levels down and up, with skip connections by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down, self.deep = self.pair(3, 16), self.pair(16, 32), self.pair(32, 64)
        self.up, self.merge = nn.ConvTranspose2d(64, 32, 2, stride=2), self.pair(64, 32)
        self.last_up, self.last_merge = nn.ConvTranspose2d(32, 16, 2, stride=2), self.pair(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    @staticmethod
    def pair(inside: int, outside: int) -> nn.Sequential:
        layers = [(nn.Conv2d(a, outside, 3, padding=1), nn.GroupNorm(4, outside), nn.SiLU()) for a in (inside, outside)]
        return nn.Sequential(*layers[0], *layers[1])

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x)
        second = self.down(nn.functional.max_pool2d(first, 2))
        third = self.deep(nn.functional.max_pool2d(second, 2))
        x = self.merge(torch.cat([second, self.up(third)], dim=1))
        return self.head(self.last_merge(torch.cat([first, self.last_up(x)], dim=1)))


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


IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CROPS = IMAGES[..., :56, :56]
WAVES = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(0, 100, (2, 16), generator=torch.Generator().manual_seed(0))
SMALL: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
SPEECH: dict[str, Any] = {**SMALL, "conv_dim": (32,) * 3, "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3)}


def llama() -> nn.Module:
    config = transformers.LlamaConfig(**{**SMALL, "num_attention_heads": 8, "num_key_value_heads": 2}, vocab_size=100)
    return transformers.LlamaForCausalLM(config)


def language(name: str, **more: Any) -> Callable[[], nn.Module]:
    """A causal language model of transformers, by the name of its family."""

    def make() -> nn.Module:
        config = (
            getattr(transformers, f"{name.removesuffix('Text')}TextConfig", None) if name.endswith("Text") else None
        )
        config = config or getattr(transformers, f"{name}Config")
        small = {**SMALL, "vocab_size": 100, "pad_token_id": 0, **more}
        return getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")(config(**small))

    return make


FEW: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 16}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def deepseek() -> nn.Module:
    return language(
        "DeepseekV3", n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1, kv_lora_rank=16,
        q_lora_rank=24, qk_rope_head_dim=8, v_head_dim=16, qk_nope_head_dim=16, moe_intermediate_size=32,
        first_k_dense_replace=1,
    )()  # fmt: skip


def whisper() -> nn.Module:
    config = transformers.WhisperConfig(
        vocab_size=100, d_model=64, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128,
        num_mel_bins=20, max_source_positions=30, pad_token_id=0,
    )  # fmt: skip
    return transformers.models.whisper.modeling_whisper.WhisperEncoder(config)


def segformer() -> nn.Module:
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 32, 64], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=32
    )
    return transformers.SegformerForSemanticSegmentation(config)


def moonshine() -> nn.Module:
    sides = ("encoder", "decoder")
    counts = {
        f"{side}_{what}": n for side in sides for what, n in (("num_hidden_layers", 2), ("num_attention_heads", 4))
    }
    config = transformers.MoonshineConfig(vocab_size=100, hidden_size=64, intermediate_size=128, **counts)
    return transformers.MoonshineForConditionalGeneration(config)


def small(name: str, **sizes: Any) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, **sizes)


WINDOWS: dict[str, Any] = {"img_size": 64, "window_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4)}
TEXT: dict[str, Any] = {"input_ids": TOKENS, "use_cache": False}
Inputs = tuple | Mapping[str, Any]
ZOO: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "ResNet-18": (torchvision.models.resnet18, (IMAGES,)),
    "MobileNetV2": (torchvision.models.mobilenet_v2, (IMAGES,)),
    "EfficientNet-B0": (torchvision.models.efficientnet_b0, (IMAGES,)),
    "DenseNet-121": (torchvision.models.densenet121, (IMAGES,)),
    "GoogLeNet": (lambda: torchvision.models.googlenet(init_weights=False), (IMAGES.repeat(1, 1, 2, 2),)),
    "RegNetX-400MF": (torchvision.models.regnet_x_400mf, (IMAGES,)),
    "ConvNeXt-T": (torchvision.models.convnext_tiny, (IMAGES,)),
    "ShuffleNetV2": (torchvision.models.shufflenet_v2_x0_5, (IMAGES,)),
    "DeepLabV3": (lambda: segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None), (IMAGES,)),
    "ViT (torchvision)": (lambda: torchvision.models.VisionTransformer(64, 16, 2, 4, 64, 128), (IMAGES,)),
    "ViT (timm)": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2), (IMAGES,)),
    "Swin": (lambda: torchvision.models.SwinTransformer([4, 4], 32, [2, 2], [2, 4], [4, 4]), (IMAGES,)),
    "BERT": (lambda: transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=100)), {"input_ids": TOKENS}),
    "GPT-2": (
        lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=4)),
        {"input_ids": TOKENS, "use_cache": False},
    ),
    "Llama (grouped queries)": (llama, {"input_ids": TOKENS, "use_cache": False}),
    "Llama (one key/value head)": (language("Llama", num_key_value_heads=1), TEXT),
    "Gemma": (language("Gemma", **FEW), TEXT),
    "Gemma 3": (language("Gemma3Text", **FEW), TEXT),
    "OLMo": (language("Olmo"), TEXT),
    "Falcon": (language("Falcon"), TEXT),
    "Phi-3": (language("Phi3", num_key_value_heads=2), TEXT),
    "Bloom": (language("Bloom", n_layer=2, n_head=4), TEXT),
    "Mixtral": (language("Mixtral", num_key_value_heads=2, num_local_experts=4), TEXT),
    "Qwen3-MoE": (language("Qwen3Moe", **FEW, **EXPERTS), TEXT),
    "GPT-OSS": (language("GptOss", **FEW, num_local_experts=4, num_experts_per_tok=2), TEXT),
    "DeepSeek-V3": (deepseek, TEXT),
    "Mamba": (language("Mamba", state_size=8), TEXT),
    "ConvNeXt V2": (
        lambda: timm.create_model("convnextv2_atto", depths=(1, 1, 1, 1), dims=(16, 24, 32, 40)), (IMAGES,)
    ),
    "ResNetV2 (group norm)": (lambda: timm.create_model("resnetv2_50d_gn", layers=(1, 1, 1, 1)), (IMAGES,)),
    "RepVGG": (lambda: timm.create_model("repvgg_a0"), (IMAGES,)),
    "HuBERT with a head": (
        lambda: transformers.HubertForCTC(transformers.HubertConfig(**SPEECH, vocab_size=32)), (WAVES,)
    ),
    "Whisper encoder": (whisper, (torch.randn(2, 20, 60, generator=torch.Generator().manual_seed(0)),)),
    "HuBERT (transformers)": (lambda: transformers.HubertModel(transformers.HubertConfig(**SPEECH)), (WAVES,)),
    "WavLM (transformers)": (lambda: transformers.WavLMModel(transformers.WavLMConfig(**SPEECH)), (WAVES,)),
    "Conformer (torchaudio)": (
        lambda: torchaudio.models.Conformer(32, 4, 64, 2, 15),
        (torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([20, 15])),
    ),
    "U-Net": (UNet, (IMAGES,)),
    "nn.TransformerEncoder": (Encoder, (torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0)),)),
    "LSTM classifier": (Recurrent, (TOKENS % 50,)),
    # Their forward pass derives or fixes widths.
    "BEiT (timm)": (small("beit_base_patch16_224", img_size=64, depth=2, embed_dim=64, num_heads=4), (IMAGES,)),
    "DINOv3 (timm)": (small("vit_small_patch16_dinov3", img_size=64, depth=2, embed_dim=64, num_heads=4), (IMAGES,)),
    "EVA-02": (small("eva02_tiny_patch14_224", img_size=56, depth=2, embed_dim=64, num_heads=4), (CROPS,)),
    "CaiT": (small("cait_xxs24_224", img_size=64, depth=2, depth_token_only=1, embed_dim=64, num_heads=4), (IMAGES,)),
    "XCiT": (small("xcit_nano_12_p16_224", img_size=64, depth=2, cls_attn_layers=1, embed_dim=64), (IMAGES,)),
    "DaViT": (small("davit_tiny", depths=(1, 1), embed_dims=(32, 64), num_heads=(2, 4)), (IMAGES,)),
    "PVTv2": (small("pvt_v2_b0", depths=(1, 1, 1, 1)), (IMAGES,)),
    "Twins-SVT": (small("twins_svt_small", img_size=64, depths=(1, 1, 2, 1)), (IMAGES,)),
    "Swin (timm)": (small("swin_tiny_patch4_window7_224", **WINDOWS), (IMAGES,)),
    "SwinV2": (small("swinv2_tiny_window8_256", **WINDOWS), (IMAGES,)),
    "SegFormer": (segformer, (IMAGES,)),
    "Moonshine": (moonshine, {"input_values": WAVES.repeat(1, 2), "decoder_input_ids": TOKENS, "use_cache": False}),
    "Emformer": (
        lambda: torchaudio.models.Emformer(64, 4, 128, 2, 4, right_context_length=1),
        (torch.randn(2, 17, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([16, 12])),
    ),
}  # fmt: skip

# Its forward pass slices by a number of the configuration, so that its heads are refused.
UNPROVED = ("Phi-3",)

# One of each kind of difficulty: depthwise and squeezed, shuffled, concatenated, fused and grouped heads, experts,
# weight norm, states.
REPRESENTATIVE = (
    "EfficientNet-B0",
    "ShuffleNetV2",
    "ViT (timm)",
    "Llama (grouped queries)",
    "Mixtral",
    "HuBERT with a head",
    "U-Net",
    "LSTM classifier",
)


def build(name: str) -> tuple[nn.Module, Callable[[nn.Module], Any]]:
    """A model of the zoo without a parameter near 0, where an error could hide, and its forward pass."""
    make, inputs = ZOO[name]
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.square().mean().sqrt() < 1e-3:
                parameter.normal_(std=0.1)
    observe = partial(run, inputs)
    batch_norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if batch_norms:
        # With fresh running statistics the signal of a deep network dies out, and errors with it.
        for module in batch_norms:
            module.momentum = None
        with torch.no_grad():
            observe(model.train())
    return model.eval(), observe


def run(inputs: Inputs, model: nn.Module) -> Any:
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def check(name: str, folder: Path) -> tuple[Discovery, nn.Module]:
    model, observe = build(name)
    found = sized_where_needed(model, discover(model, observe), observe)
    assert found.groups
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    worst, faults = find_faults(gated, observe, tolerance=ANY_MODEL_TOLERANCE)
    assert worst <= ANY_MODEL_TOLERANCE
    assert bool(faults) == (name in UNPROVED)
    if faults:
        found, model = found.without(faults), gated.detach()
        gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    cost = mac_size(model, found.groups, found.trace)
    dense = observe(model)
    uncounted = cost.total - counted_macs(model, observe)
    for seed in range(3):
        pruned, plan = random_plan_is_right(gated, observe, cost, dense, uncounted, np.random.default_rng(seed))
    save(pruned, plan, folder)
    assert relative_difference(observe(pruned), observe(load(folder, ZOO[name][0]))) == 0
    return found, gated.detach()


@torch.no_grad()
def random_plan_is_right(gated, observe, cost, dense, uncounted, random) -> tuple[nn.Module, RemovalPlan]:
    expected, pruned, plan, kept = random_cut(gated, observe, random)
    assert relative_difference(expected, observe(pruned)) <= ANY_MODEL_TOLERANCE
    assert relative_difference(dense, expected) > 10 * ANY_MODEL_TOLERANCE
    if uncounted == 0:
        assert cost.exact(kept) == counted_macs(pruned, observe)
    return pruned, plan


def counted_macs(model: nn.Module, observe: Callable[[nn.Module], Any]) -> int:
    return macs(lambda: observe(model))


def row(name: str, found: Discovery, model: nn.Module) -> tuple[str, ...]:
    size = GatedModel(copy.deepcopy(model), found.groups, target_sparsity=1e-9).size_model
    share = 1 - size.exact(np.zeros_like(size.units)) / size.total
    kinds = Counter(group.kind for group in found.groups)
    reasons = Counter[str]()
    for alone in found.left_alone:
        reasons["the model's own output" if alone.interface else alone.reason.split(" in ")[0].split(":")[0]] += (
            alone.units
        )
    return (
        name,
        str(len(found.groups)),
        f"{found.reached_units / found.hidden_units:.0%}",
        f"{share:.0%}",
        ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
        "; ".join(f"{units} units: {reason}" for reason, units in reasons.items()) or "nothing",
    )


@pytest.mark.zoo
@pytest.mark.parametrize("name", ZOO)
def test_zoo(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    found, model = check(name, tmp_path)
    record_property("zoo", row(name, found, model))
    assert found.reached_units > found.hidden_units / 2


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_a_representative_part(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_multiply_accumulates_of_a_recurrent_network_are_those_of_its_matrix_products() -> None:
    """torch's counter knows no recurrent layer: (24 + 32) * 4 * 32 and (64 + 32) * 4 * 32 a step and direction."""
    model, observe = build("LSTM classifier")
    found = discover(model, observe)
    steps = TOKENS.numel()
    expected = steps * 2 * 4 * 32 * (24 + 32 + 64 + 32) + 2 * 64 * 5
    assert mac_size(model, found.groups, found.trace).total == expected
