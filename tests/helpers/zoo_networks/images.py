"""Image networks of the zoo, with random weights and small where the class allows it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torchvision.models import segmentation

from zoo_networks.inputs import CROPS, IMAGES, Network, noise


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


ONES = (1, 1, 1, 1)
DIMS = (16, 32, 48, 64)
VIT: dict[str, Any] = {"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 4}
SEEN: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 64,
    "patch_size": 16,
}  # fmt: skip


def small(name: str, **sizes: Any) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, **sizes)


def seen(name: str, suffix: str = "ForImageClassification", **more: Any) -> Callable[[], nn.Module]:
    """A vision network of transformers, by the name of its family."""

    def make() -> nn.Module:
        config = getattr(transformers, f"{name}Config")(**{**SEEN, **more})
        return getattr(transformers, f"{name}{suffix}")(config)

    return make


WINDOWS: dict[str, Any] = {"img_size": 64, "window_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4)}


def segformer() -> nn.Module:
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 32, 64], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=32
    )
    return transformers.SegformerForSemanticSegmentation(config)


def levit() -> nn.Module:
    config = transformers.LevitConfig(
        image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8]
    )
    return transformers.LevitForImageClassification(config)


IMAGE_NETWORKS: dict[str, Network] = {
    "ResNet-18": Network(torchvision.models.resnet18, (IMAGES,)),
    "MobileNetV2": Network(torchvision.models.mobilenet_v2, (IMAGES,)),
    "EfficientNet-B0": Network(torchvision.models.efficientnet_b0, (IMAGES,)),
    "DenseNet-121": Network(torchvision.models.densenet121, (IMAGES,)),
    "GoogLeNet": Network(lambda: torchvision.models.googlenet(init_weights=False), (IMAGES.repeat(1, 1, 2, 2),)),
    "RegNetX-400MF": Network(torchvision.models.regnet_x_400mf, (IMAGES,)),
    "ConvNeXt-T": Network(torchvision.models.convnext_tiny, (IMAGES,)),
    "ShuffleNetV2": Network(torchvision.models.shufflenet_v2_x0_5, (IMAGES,)),
    "DeepLabV3": Network(lambda: segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None), (IMAGES,)),
    "ViT (torchvision)": Network(lambda: torchvision.models.VisionTransformer(64, 16, 2, 4, 64, 128), (IMAGES,)),
    "ViT (timm)": Network(lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2), (IMAGES,)),
    "Swin": Network(lambda: torchvision.models.SwinTransformer([4, 4], 32, [2, 2], [2, 4], [4, 4]), (IMAGES,)),
    "ConvNeXt V2": Network(
        lambda: timm.create_model("convnextv2_atto", depths=(1, 1, 1, 1), dims=(16, 24, 32, 40)), (IMAGES,)
    ),
    "ResNetV2 (group norm)": Network(lambda: timm.create_model("resnetv2_50d_gn", layers=(1, 1, 1, 1)), (IMAGES,)),
    "RepVGG": Network(lambda: timm.create_model("repvgg_a0"), (IMAGES,)),
    "U-Net": Network(UNet, (IMAGES,)),
    "BEiT (timm)": Network(small("beit_base_patch16_224", **VIT), (IMAGES,)),
    "DINOv3 (timm)": Network(small("vit_small_patch16_dinov3", **VIT), (IMAGES,)),
    "EVA-02": Network(small("eva02_tiny_patch14_224", img_size=56, depth=2, embed_dim=64, num_heads=4), (CROPS,)),
    "CaiT": Network(small("cait_xxs24_224", depth_token_only=1, **VIT), (IMAGES,)),
    "XCiT": Network(small("xcit_nano_12_p16_224", img_size=64, depth=2, cls_attn_layers=1, embed_dim=64), (IMAGES,)),
    "DaViT": Network(small("davit_tiny", depths=(1, 1), embed_dims=(32, 64), num_heads=(2, 4)), (IMAGES,)),
    "PVTv2": Network(small("pvt_v2_b0", depths=(1, 1, 1, 1)), (IMAGES,)),
    "Twins-SVT": Network(small("twins_svt_small", img_size=64, depths=(1, 1, 2, 1)), (IMAGES,)),
    "Swin (timm)": Network(small("swin_tiny_patch4_window7_224", **WINDOWS), (IMAGES,)),
    "SwinV2": Network(small("swinv2_tiny_window8_256", **WINDOWS), (IMAGES,)),
    "SegFormer": Network(segformer, (IMAGES,)),
    "VGG-11": Network(lambda: torchvision.models.vgg11_bn(num_classes=10), (IMAGES[..., :32, :32],)),
    "SqueezeNet": Network(torchvision.models.squeezenet1_1, (IMAGES,)),
    "ResNeXt": Network(small("resnext50_32x4d", layers=ONES), (IMAGES,)),
    "SE-ResNet": Network(small("seresnet18"), (IMAGES,)),
    "ECA-ResNet": Network(small("ecaresnet26t", layers=ONES), (IMAGES,)),
    "SK-ResNet": Network(small("skresnet18", layers=ONES), (IMAGES,)),
    "ResNeSt": Network(small("resnest14d"), (IMAGES,)),
    "Res2Net": Network(small("res2net50_26w_4s", layers=ONES), (IMAGES,)),
    "ResNetV2 (batch norm)": Network(small("resnetv2_50", layers=ONES), (IMAGES,)),
    "RegNetY": Network(small("regnety_002"), (IMAGES,)),
    "MobileNetV3": Network(small("mobilenetv3_small_050"), (IMAGES,)),
    "MobileNetV4": Network(small("mobilenetv4_conv_small_050"), (IMAGES,)),
    "GhostNet": Network(small("ghostnet_050"), (IMAGES,)),
    "MixNet": Network(small("mixnet_s"), (IMAGES,)),
    "HRNet": Network(small("hrnet_w18_small"), (IMAGES,)),
    "DLA": Network(small("dla46_c"), (IMAGES,)),
    "VoVNet": Network(small("ese_vovnet19b_slim"), (IMAGES,)),
    "CS3Darknet": Network(small("cs3darknet_focus_s"), (IMAGES,)),
    "DeiT (distilled)": Network(small("deit_tiny_distilled_patch16_224", **VIT), (IMAGES,)),
    "DeiT III": Network(small("deit3_small_patch16_224", **VIT), (IMAGES,)),
    "SigLIP (timm)": Network(small("vit_base_patch16_siglip_224", **VIT), (IMAGES,)),
    "PiT": Network(small("pit_ti_224", img_size=64, depth=(1, 1, 1)), (IMAGES,)),
    "Visformer": Network(small("visformer_tiny", img_size=64, depth=3), (IMAGES,)),
    "TNT": Network(small("tnt_s_patch16_224", img_size=64, depth=2), (IMAGES,)),
    "Sequencer": Network(small("sequencer2d_s", img_size=64, layers=ONES), (IMAGES,)),
    "EdgeNeXt": Network(small("edgenext_xx_small", depths=ONES, dims=DIMS), (IMAGES,)),
    "MobileViT": Network(small("mobilevit_xxs"), (IMAGES,)),
    "MobileViTv2": Network(small("mobilevitv2_050"), (IMAGES,)),
    "EfficientViT": Network(small("efficientvit_b0"), (IMAGES,)),
    "EfficientViT-M": Network(
        small("efficientvit_m0", img_size=128, depth=ONES[:3], embed_dim=DIMS[1:], num_heads=(2, 2, 2)),
        (noise(2, 3, 128, 128),),
    ),
    "LeViT": Network(
        small("levit_128s", img_size=64, embed_dim=DIMS[1:], num_heads=(2, 3, 4), depth=(1, 1, 1)), (IMAGES,)
    ),
    "LeViT (transformers)": Network(levit, (IMAGES,)),
    "MNASNet": Network(lambda: torchvision.models.mnasnet0_5(num_classes=10), (IMAGES,)),
    "RepViT": Network(small("repvit_m0_9", depth=ONES, embed_dim=DIMS), (IMAGES,)),
}  # fmt: skip
