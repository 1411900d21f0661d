"""The architectures of the zoo benchmark: name -> what to load, and what kind it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["CNN", "ViT", "hybrid", "mixer"]
Set = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One network of a library, at the size its library gives it."""

    name: str
    library: Literal["torchvision", "timm"]
    kind: Kind

    @property
    def spec(self) -> str:
        """As `shrink export` takes it."""
        return f"{self.library}:{self.name}"


def _listed(library: Literal["torchvision", "timm"], kind: Kind, names: str) -> list[Architecture]:
    return [Architecture(name, library, kind) for name in names.split()]


ZOO: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        *_listed("torchvision", "CNN", """
            mobilenet_v2 resnet18 mobilenet_v3_small mobilenet_v3_large efficientnet_b0 resnet50 resnext50_32x4d
            squeezenet1_1 shufflenet_v2_x1_0 mnasnet1_0 densenet121 googlenet regnet_y_400mf vgg11 regnet_x_400mf
            alexnet inception_v3
        """),
        *_listed("timm", "CNN", """
            efficientnet_lite0 ghostnetv2_100 mobileone_s0 repvit_m1 mobilenetv4_conv_small fbnetc_100 hardcorenas_a
            tinynet_a lcnet_100 rexnet_100 hrnet_w18_small convnext_tiny convnext_atto repghostnet_100 starnet_s1
            dla34 inception_next_atto hgnetv2_b0 skresnet18 eca_nfnet_l0 mixnet_s ese_vovnet19b_dw convnextv2_atto
            fasternet_t0 tf_efficientnetv2_b0 ghostnetv3_100 gernet_s legacy_seresnet18 efficientnet_es
            mambaout_femto cspresnet50 res2net50_14w_8s resnetv2_50 darknet53 mobilenetv4_conv_medium
        """),
        *_listed("torchvision", "ViT", "vit_b_16 swin_t"),
        *_listed("timm", "ViT", """
            deit_tiny_patch16_224 vit_tiny_patch16_224 deit3_small_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224
            xcit_tiny_12_p16_224 beit_base_patch16_224 pit_ti_224 crossvit_9_240 eva02_tiny_patch14_224
            twins_pcpvt_small mvitv2_tiny volo_d1_224
        """),
        *_listed("timm", "hybrid", """
            mobilenetv4_hybrid_medium mobilevit_s mobilevitv2_050 levit_128 efficientformer_l1 efficientformerv2_s0
            tiny_vit_5m_224 fastvit_t8 edgenext_small edgenext_xx_small coatnet_0_rw_224 coatnet_nano_rw_224
            poolformer_s12 efficientvit_b0 efficientvit_m0 maxvit_nano_rw_256 pvt_v2_b0 shvit_s1 swiftformer_xs
            coat_lite_tiny botnet26t_256 halonet26t nest_tiny visformer_tiny mobilevit_xxs
        """),
        *_listed("timm", "mixer", "mixer_s16_224 resmlp_12_224 gmlp_s16_224"),
    )
}  # fmt: skip

SETS: dict[Set, tuple[str, ...]] = {
    "a": ("mobilenet_v2", "resnet18", "vit_b_16", "swin_t", "deit_tiny_patch16_224"),
    "b": tuple(ZOO),
}
"""a: the five that every export must manage; b: the whole zoo."""
