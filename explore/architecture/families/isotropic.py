"""Published models with one stage: one function for each family, one row for each model."""

from explore.architecture.families.row import IMAGENET, Published


def _mixer(patch: int, depth: int, width: int, params: int, macs: float, top1: float, training: str) -> Published:
    return Published(
        paper="MLP-Mixer, arXiv 2105.01601",
        params=params,
        macs=macs,
        model={"patch_size": patch, "depth": depth, "width": width},
        token_mixing="mlp",
        channel_mixing="mlp",
        top1=top1,
        training=training,
    )


# Accuracies of tables 2 and 3 of the paper, version 4.
MIXER = {
    "mixer_s32": _mixer(32, 8, 512, 19_104_624, 1.002e9, 68.70, "JFT-300M"),
    "mixer_s16": _mixer(16, 8, 512, 18_528_264, 3.777e9, 73.83, "JFT-300M"),
    "mixer_b32": _mixer(32, 12, 768, 60_293_428, 3.238e9, 75.53, "JFT-300M"),
    "mixer_b16": _mixer(16, 12, 768, 59_880_472, 12.602e9, 76.44, IMAGENET),
    "mixer_l32": _mixer(32, 24, 1024, 206_939_264, 11.253e9, 80.67, "JFT-300M"),
    "mixer_l16": _mixer(16, 24, 1024, 208_196_168, 44.548e9, 71.76, IMAGENET),
    "mixer_h14": _mixer(14, 32, 1280, 432_350_952, 120.99e9, 86.32, "JFT-300M"),
}


def _vit(patch: int, depth: int, width: int, params: int, macs: float, top1: float, training: str) -> Published:
    return Published(
        paper="ViT, arXiv 2010.11929",
        params=params,
        macs=macs,
        model={"patch_size": patch, "depth": depth, "width": width, "pooling": "class_token"},
        token_mixing="attention",
        channel_mixing="mlp",
        top1=top1,
        training=training,
    )


# Accuracies as measured by timm for the weights of Steiner et al., 2021, arXiv 2106.10270.
VIT = {
    "vit_ti16": _vit(16, 12, 192, 5_717_416, 1.254e9, 75.46, "ImageNet-21k"),
    "vit_s32": _vit(32, 12, 384, 22_878_952, 1.143e9, 76.01, "ImageNet-21k"),
    "vit_s16": _vit(16, 12, 384, 22_050_664, 4.599e9, 78.84, IMAGENET),
    "vit_b32": _vit(32, 12, 768, 88_224_232, 4.409e9, 74.91, IMAGENET),
    "vit_b16": _vit(16, 12, 768, 86_567_656, 17.564e9, 79.15, IMAGENET),
    "vit_l16": _vit(16, 24, 1024, 304_326_632, 61.555e9, 85.86, "ImageNet-21k"),
}


def _convnext(depth: int, width: int, params: int, macs: float, top1: float) -> Published:
    return Published(
        paper="ConvNeXt (isotropic), arXiv 2201.03545",
        params=params,
        macs=macs,
        model={"patch_size": 16, "depth": depth, "width": width, "block": "convnext", "norm_after_pooling": True},
        token_mixing="convolution",
        channel_mixing="mlp",
        top1=top1,
    )


CONVNEXT = {
    "convnext_iso_s": _convnext(18, 384, 22_308_712, 4.286e9, 78.7),
    "convnext_iso_b": _convnext(18, 768, 87_083_752, 16.896e9, 82.0),
    "convnext_iso_l": _convnext(36, 1024, 305_905_640, 59.699e9, 82.6),
}


def _convmixer(
    width: int, depth: int, kernel: int, patch: int, activation: str, params: int, macs: float, top1: float
) -> Published:
    return Published(
        paper="ConvMixer, arXiv 2201.09792",
        params=params,
        macs=macs,
        model={
            "patch_size": patch,
            "depth": depth,
            "width": width,
            "block": "convmixer",
            "activation": activation,
            "norm": "batch",
            "norm_eps": 1e-5,
            "final_norm": "none",
            "stem": {"layers": ["projection", activation, "norm"]},
        },
        token_mixing={"name": "convolution", "kernel": kernel},
        channel_mixing="linear",
        top1=top1,
    )


# The released weights of ConvMixer-768/32 have ReLU, unlike the paper.
CONVMIXER = {
    "convmixer_1536_20": _convmixer(1536, 20, 9, 7, "gelu", 51_625_960, 51.10e9, 81.37),
    "convmixer_768_32": _convmixer(768, 32, 7, 7, "relu", 21_110_248, 20.68e9, 80.16),
    "convmixer_1024_20": _convmixer(1024, 20, 9, 14, "gelu", 24_383_464, 5.95e9, 76.94),
}


def _s2mlp(depth: int, width: int, params: int, macs: float) -> Published:
    return Published(
        paper="S²-MLP, arXiv 2106.07477",
        params=params,
        macs=macs,
        model={"patch_size": 16, "depth": depth, "width": width, "stem": {"layers": ["projection", "norm"]}},
        token_mixing="s2",
        channel_mixing="mlp",
    )


# No official code: counted from the paper's specification.
S2MLP = {
    "s2mlp_wide": _s2mlp(12, 768, 72_242_920, 13.99e9),
    "s2mlp_deep": _s2mlp(36, 384, 53_918_056, 10.46e9),
}


def _gmlp(width: int, params: int, macs: float, top1: float | None) -> Published:
    return Published(
        paper="gMLP, arXiv 2105.08050",
        params=params,
        macs=macs,
        model={"patch_size": 16, "depth": 30, "width": width},
        token_mixing="spatial_gating",
        channel_mixing="none",
        top1=top1,
    )


GMLP = {
    "gmlp_ti16": _gmlp(128, 5_867_328, 1.329e9, None),
    "gmlp_s16": _gmlp(256, 19_422_656, 4.392e9, 79.6),
    "gmlp_b16": _gmlp(512, 73_075_392, 15.720e9, None),
}


def _resmlp(patch: int, depth: int, width: int, layer_scale: float, params: int, macs: float, top1: float) -> Published:
    return Published(
        paper="ResMLP, arXiv 2105.03404",
        params=params,
        macs=macs,
        model={
            "patch_size": patch,
            "depth": depth,
            "width": width,
            "norm": "affine",
            "layer_scale": layer_scale,
            "drop_path_schedule": "uniform",
        },
        token_mixing="linear",
        channel_mixing="mlp",
        top1=top1,
    )


# Accuracies as measured by timm.
RESMLP = {
    "resmlp_s12": _resmlp(16, 12, 384, 0.1, 15_350_872, 3.010e9, 76.66),
    "resmlp_s24": _resmlp(16, 24, 384, 1e-5, 30_020_680, 5.961e9, 79.38),
    "resmlp_s36": _resmlp(16, 36, 384, 1e-6, 44_690_488, 8.913e9, 79.77),
    "resmlp_b24": _resmlp(8, 24, 768, 1e-6, 129_138_280, 100.23e9, 81.03),
}


def _gfnet(depth: int, width: int, params: int, macs: float, top1: float) -> Published:
    return Published(
        paper="GFNet, arXiv 2107.00645",
        params=params,
        macs=macs,
        model={"patch_size": 16, "depth": depth, "width": width, "block": "joint", "positions": "learned"},
        token_mixing="global_filter",
        channel_mixing="mlp",
        top1=top1,
    )


# Multiply-adds without those of the Fourier transforms.
GFNET = {
    "gfnet_ti": _gfnet(12, 256, 7_511_784, 1.27e9, 74.6),
    "gfnet_xs": _gfnet(12, 384, 15_985_768, 2.83e9, 78.6),
    "gfnet_s": _gfnet(19, 384, 24_869_608, 4.45e9, 80.0),
    "gfnet_b": _gfnet(19, 512, 43_120_616, 7.89e9, 80.7),
}


def _gmixer(depth: int, params: int, macs: float, top1: float | None) -> Published:
    return Published(
        paper="gMixer (timm), after MLP-Mixer, arXiv 2105.01601, and GLU variants, arXiv 2002.05202",
        params=params,
        macs=macs,
        model={"patch_size": 16, "depth": depth, "width": 384},
        token_mixing={"name": "swiglu", "expansion": 0.5},
        channel_mixing={"name": "swiglu", "expansion": 2.0},
        top1=top1,
    )


GMIXER = {
    "gmixer_12": _gmixer(12, 12_701_080, 2.66e9, None),
    "gmixer_24": _gmixer(24, 24_721_096, 5.26e9, 78.05),
}


def _external(depth: int, width: int, heads: int, params: int, macs: float) -> Published:
    return Published(
        paper="External attention, arXiv 2105.02358; an isotropic trunk of patches in place of EAMLP's T2T stem",
        params=params,
        macs=macs,
        model={
            "patch_size": 16,
            "depth": depth,
            "width": width,
            "norm_eps": 1e-5,
            "pooling": "class_token",
            "positions": "fixed",
        },
        token_mixing={"name": "external_attention", "heads": heads},
        channel_mixing={"name": "mlp", "expansion": 3.0},
    )


# EAMLP-14 and -19 with their depth, width and heads, but not their T2T stem: what is published of them (30 M and 55 M
# parameters, 78.9 and 79.4 % top-1) is that of another network. Counted from the specification.
EXTERNAL = {
    "eamlp_iso_14": _external(14, 384, 6, 29_769_192, 6.294e9),
    "eamlp_iso_19": _external(19, 448, 7, 54_450_856, 11.444e9),
}
