"""Which vision transformers there are.

DINO: Caron et al., ICCV 2021. DeiT: Touvron et al., ICML 2021. DINOv2: Oquab et al., TMLR 2024; registers: Darcet et al.,
ICLR 2024. DINOv3: Simeoni et al., arXiv 2508.10104 (its weights have a licence of their own, and the user brings them). CLIP:
Radford et al., ICML 2021; LAION's weights: Ilharco et al., OpenCLIP, 2021.
"""

from typing import NamedTuple

__all__ = ["SPECS", "Spec"]


class Spec(NamedTuple):
    """A vision transformer.

    Attributes:
      patch: side of a patch in pixels.
      dim, depth, heads: channels, blocks, attention heads.
      grid: patches along each side of the images that it was trained on.
      registers: extra tokens without a position.
      distilled: whether a distillation token follows the class token.
      layer_scale: whether every residual branch has a weight per channel.
      hub: where the weights are; "REPOSITORY:FILE" for a file of another name.
      positions: how the positions are resized (`positions.RULES`), or "rotary"; "meta" is DINOv2's code: "antialias" with
        registers, "offset" without.
      mlp: "gelu", "quick_gelu" (OpenAI's CLIP) or "swiglu".
      hidden: width of the feed-forward network; 0 is four times `dim`.
      eps: of all norms.
      embedding: channels that CLIP has in common with text; 0 in networks without text.
      value_from: the first block of the path with value-value attention; 0 if there is none.
      pixels: how pixels are normalised, a key of `backbone.PIXELS`.
    """

    patch: int
    dim: int
    depth: int
    heads: int
    grid: int
    registers: int
    distilled: bool
    layer_scale: bool
    hub: str
    positions: str = "meta"
    mlp: str = "gelu"
    hidden: int = 0
    eps: float = 1e-6
    embedding: int = 0
    value_from: int = 0
    pixels: str = "imagenet"


def _dino(size: str, dim: int, heads: int) -> dict[str, Spec]:
    return {
        f"dino_vit{size[0]}{patch}": Spec(
            patch, dim, 12, heads, 224 // patch, 0, False, False, f"timm/vit_{size}_patch{patch}_224.dino", "offset"
        )
        for patch in (8, 16)
    }


def _dinov2(size: str, dim: int, depth: int, heads: int, **rest) -> dict[str, Spec]:
    return {
        f"dinov2_vit{size[0]}14{suffix}": Spec(
            14, dim, depth, heads, 37, number, False, True, f"timm/vit_{size}_patch14_{kind}dinov2.lvd142m", **rest
        )
        for suffix, number, kind in (("", 0, ""), ("_reg", 4, "reg4_"))
    }


def _dinov3(size: str, dim: int, depth: int, heads: int, **rest) -> Spec:
    hub = f"timm/vit_{size}_patch16_dinov3_qkvb.lvd1689m"
    return Spec(16, dim, depth, heads, 16, 4, False, True, hub, "rotary", eps=1e-5, **rest)


def _clip(patch: int, dim: int, depth: int, heads: int, grid: int, embedding: int, value_from: int, hub: str) -> Spec:
    """OpenAI's networks have the quick GELU, LAION's the exact one."""
    openai = hub.endswith("openai")
    return Spec(
        patch, dim, depth, heads, grid, 0, False, False, f"{hub}:open_clip_model.safetensors", "antialias",
        "quick_gelu" if openai else "gelu", eps=1e-5, embedding=embedding, value_from=value_from, pixels="clip",
    )  # fmt: skip


_B16, _B32, _L14 = (16, 768, 12, 12, 14, 512, 7), (32, 768, 12, 12, 7, 512, 7), (14, 1024, 24, 16, 16, 768, 6)
_L14_336 = _clip(14, 1024, 24, 16, 24, 768, 6, "timm/vit_large_patch14_clip_336.openai")

SPECS = {
    **_dino("small", 384, 6),
    **_dino("base", 768, 12),
    **_dinov2("small", 384, 12, 6),
    **_dinov2("base", 768, 12, 12),
    **_dinov2("large", 1024, 24, 16),
    **_dinov2("giant", 1536, 40, 24, mlp="swiglu", hidden=4096),
    # Dinomaly and INP-Former resize the positions of networks with registers as those of the others
    **{
        f"{name}_offset": spec._replace(positions="offset")
        for sizes in (("small", 384, 12, 6), ("base", 768, 12, 12), ("large", 1024, 24, 16))
        for name, spec in _dinov2(*sizes).items()
        if spec.registers
    },
    "dinov3_vits16": _dinov3("small", 384, 12, 6),
    "dinov3_vits16plus": _dinov3("small_plus", 384, 12, 6, mlp="swiglu", hidden=1536),
    "dinov3_vitb16": _dinov3("base", 768, 12, 12),
    "dinov3_vitl16": _dinov3("large", 1024, 24, 16),
    "dinov3_vith16plus": _dinov3("huge_plus", 1280, 32, 20, mlp="swiglu", hidden=5120),
    "clip_vitb16": _clip(*_B16, "timm/vit_base_patch16_clip_224.openai"),
    "clip_vitb16_laion2b": _clip(*_B16, "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    "clip_vitb16plus_240": _clip(16, 896, 12, 14, 15, 640, 7, "timm/vit_base_patch16_plus_clip_240.laion400m_e31"),
    "clip_vitb32": _clip(*_B32, "timm/vit_base_patch32_clip_224.openai"),
    "clip_vitb32_laion2b": _clip(*_B32, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    "clip_vitl14": _clip(*_L14, "timm/vit_large_patch14_clip_224.openai"),
    "clip_vitl14_laion2b": _clip(*_L14, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K")._replace(pixels="half"),
    "clip_vitl14_336": _L14_336,
    # MuSc and AnomalyCLIP resize the positions otherwise
    "clip_vitl14_336_exact": _L14_336._replace(positions="exact"),
    "clip_vitl14_336_bilinear": _L14_336._replace(positions="bilinear"),
    "deit_base_distilled_patch16_384": Spec(
        16, 768, 12, 12, 24, 0, True, False, "timm/deit_base_distilled_patch16_384.fb_in1k", "offset"
    ),
}  # fmt: skip
