"""Published models with several stages: one function for each family, one row for each model."""

from collections.abc import Sequence
from typing import Any

from explore.architecture.families.row import Published

_WIDTHS = (64, 128, 320, 512)  # of the smaller PoolFormers, CycleMLPs, WaveMLPs and Hire-MLPs
_WIDER = (96, 192, 384, 768)
_FOUR, _EIGHT = (4.0, 4.0, 4.0, 4.0), (8.0, 8.0, 4.0, 4.0)


def _stages(widths: Sequence[int], depths: Sequence[int]) -> list[dict[str, Any]]:
    """Stages with a downsample before each that is wider than the one before it."""
    return [
        {"depth": depth, "width": width} | ({"downsample": False} if width == before else {})
        for depth, width, before in zip(depths, widths, (None, *widths[:-1]), strict=True)
    ]


def _s2mlpv2(patch: int, widths: Sequence[int], depths: Sequence[int], params: int, macs: float) -> Published:
    return Published(
        paper="S²-MLPv2, arXiv 2108.01072",
        params=params,
        macs=macs,
        model={"patch_size": patch, "stages": _stages(widths, depths), "norm_eps": 1e-5},
        token_mixing="s2v2",
        channel_mixing={"name": "mlp", "expansion": 3.0},
    )


# No official code: counted from the paper's specification.
S2MLPV2 = {
    "s2mlpv2_s14": _s2mlpv2(14, (384,), (18,), 29_891_176, 6.856e9),
    "s2mlpv2_s7": _s2mlpv2(7, (192, 384), (4, 14), 25_113_448, 6.902e9),
    "s2mlpv2_m7": _s2mlpv2(7, (256, 512), (7, 17), 55_269_864, 16.284e9),
}


def _vip(
    patch: int, widths: Sequence[int], depths: Sequence[int], params: int, macs: float, top1: float | None
) -> Published:
    return Published(
        paper="Vision Permutator, arXiv 2106.12368",
        params=params,
        macs=macs,
        model={"patch_size": patch, "stages": _stages(widths, depths), "norm_eps": 1e-5},
        token_mixing="permutator",
        channel_mixing={"name": "mlp", "expansion": 3.0},
        top1=top1,
    )


VIP = {
    "vip_s14": _vip(14, (384, 384, 384, 384), (4, 3, 8, 3), 29_892_904, 6.856e9, None),
    "vip_s7": _vip(7, (192, 384, 384, 384), (4, 3, 8, 3), 25_114_984, 6.902e9, 81.5),
    "vip_m7": _vip(7, (256, 256, 512, 512), (4, 3, 14, 3), 55_272_488, 16.284e9, 82.7),
    "vip_l7": _vip(7, (256, 512, 512, 512), (8, 8, 16, 4), 87_784_936, 24.340e9, 83.2),
}


def _dynamixer(
    widths: Sequence[int], depths: Sequence[int], reduced: int, params: int, macs: float, top1: float
) -> Published:
    stages = [
        stage | {"token_mixing": {"dynamic": {"heads": 8 if width == widths[0] else 16}}}
        for stage, width in zip(_stages(widths, depths), widths, strict=True)
    ]
    return Published(
        paper="DynaMixer, arXiv 2201.12083",
        params=params,
        macs=macs,
        model={"patch_size": 7, "stages": stages, "norm_eps": 1e-5},
        token_mixing={"name": "dynamic", "reduced": reduced},
        channel_mixing={"name": "mlp", "expansion": 3.0},
        top1=top1,
    )


DYNAMIXER = {
    "dynamixer_s": _dynamixer((192, 384, 384, 384), (4, 3, 8, 3), 2, 26_265_960, 7.30e9, 82.7),
    "dynamixer_m": _dynamixer((256, 256, 512, 512), (4, 3, 14, 3), 2, 57_128_264, 16.98e9, 83.7),
    "dynamixer_l": _dynamixer((256, 512, 512, 512), (8, 8, 16, 4), 8, 97_818_088, 27.34e9, 84.3),
}


def _asmlp(width: int, depths: Sequence[int], drop_path: float, params: int, macs: float, top1: float) -> Published:
    return Published(
        paper="AS-MLP, arXiv 2107.08391",
        params=params,
        macs=macs,
        model={
            "patch_size": 4,
            "stages": [{"depth": depth, "width": width * 2**index} for index, depth in enumerate(depths)],
            "norm": "group",
            "norm_eps": 1e-5,
            "drop_path": drop_path,
            "stem": {"layers": ["projection", "norm"]},
            "downsample": {"layers": ["norm", "projection"], "bias": False},
        },
        token_mixing="axial_shift",
        channel_mixing="mlp",
        top1=top1,
    )


ASMLP = {
    "asmlp_t": _asmlp(96, (2, 2, 6, 2), 0.2, 28_282_696, 4.350e9, 81.3),
    "asmlp_s": _asmlp(96, (2, 2, 18, 2), 0.3, 49_594_696, 8.512e9, 83.1),
    "asmlp_b": _asmlp(128, (2, 2, 18, 2), 0.5, 87_752_808, 15.126e9, 83.3),
}


def _smlp(width: int, depths: Sequence[int], drop_path: float, params: int, macs: float, top1: float) -> Published:
    return Published(
        paper="sMLPNet, arXiv 2109.05422",
        params=params,
        macs=macs,
        model={
            "patch_size": 4,
            "stages": [{"depth": depth, "width": width * 2**index} for index, depth in enumerate(depths)],
            "norm_eps": 1e-5,
            "final_norm": "batch",
            "drop_path": drop_path,
            "stem": {"bias": False},
            "downsample": {"bias": False},
        },
        token_mixing="sparse",
        channel_mixing={"name": "mlp", "expansion": 3.0},
        top1=top1,
    )


SMLP = {
    "smlp_t": _smlp(80, (2, 8, 14, 2), 0.0, 24_123_584, 4.99e9, 81.9),
    "smlp_s": _smlp(96, (2, 10, 24, 2), 0.2, 48_558_136, 10.31e9, 83.1),
    "smlp_b": _smlp(112, (2, 10, 24, 2), 0.3, 65_880_408, 13.99e9, 83.4),
}


def _repmlp(
    width: int,
    depths: Sequence[int],
    share_sets: Sequence[int],
    image_size: int,
    trained: tuple[int, float],
    deployed: tuple[int, float],
    top1: float,
) -> Published:
    embedding = {"layers": ["projection", "norm", "relu"], "bias": False}
    return Published(
        paper="RepMLPNet, arXiv 2112.11081",
        image_size=image_size,
        params=trained[0],
        macs=trained[1],
        deployed=deployed,
        model={
            "patch_size": 4,
            "stages": [
                {"depth": depth, "width": width * 2**index, "token_mixing": {"repmlp": {"share_sets": sets}}}
                for index, (depth, sets) in enumerate(zip(depths, share_sets, strict=True))
            ],
            "norm": "batch",
            "norm_eps": 1e-5,
            "stem": embedding,
            "downsample": embedding,
        },
        token_mixing="repmlp",
        channel_mixing={"name": "mlp", "batch_norm": True},
        top1=top1,
    )


_REPMLP_T, _REPMLP_B = (1, 4, 16, 128), (1, 4, 32, 128)
REPMLP = {
    "repmlp_t224": _repmlp(64, (2, 2, 6, 2), _REPMLP_T, 224, (38_293_608, 2.808e9), (38_331_720, 2.798e9), 76.62),
    "repmlp_b224": _repmlp(96, (2, 2, 12, 2), _REPMLP_B, 224, (68_242_712, 6.676e9), (68_332_664, 6.657e9), 80.32),
    "repmlp_t256": _repmlp(64, (2, 2, 6, 2), _REPMLP_T, 256, (58_687_848, 4.258e9), (58_739_400, 4.246e9), 77.44),
    "repmlp_b256": _repmlp(96, (2, 2, 12, 2), _REPMLP_B, 256, (96_447_512, 9.640e9), (96_568_184, 9.616e9), 81.03),
    "repmlp_d256": _repmlp(80, (2, 2, 18, 2), _REPMLP_T, 256, (86_887_648, 8.636e9), (86_985_280, 8.611e9), 80.83),
    "repmlp_l256": _repmlp(
        96, (2, 2, 18, 2), (1, 4, 32, 256), 256, (117_641_560, 11.609e9), (117_820_600, 11.579e9), 81.68
    ),
}


def _pyramid(widths: Sequence[int], depths: Sequence[int], expansions: Sequence[float] = _FOUR) -> list[dict[str, Any]]:
    """Four stages; an expansion other than 4 is an option of the channel MLP."""
    return [
        {"depth": depth, "width": width}
        | ({} if expansion == 4 else {"channel_mixing": {"mlp": {"expansion": expansion}}})
        for depth, width, expansion in zip(depths, widths, expansions, strict=True)
    ]


def _poolformer(
    widths: Sequence[int], depths: Sequence[int], layer_scale: float, params: int, macs: float, top1: float
) -> Published:
    return Published(
        paper="PoolFormer, arXiv 2111.11418",
        params=params,
        macs=macs,
        model={
            "patch_size": 4,
            "stages": _pyramid(widths, depths),
            "norm": "group",
            "norm_eps": 1e-5,
            "layer_scale": layer_scale,
            "stem": {"overlap": True},
            "downsample": {"overlap": True},
        },
        token_mixing="pooling",
        channel_mixing="mlp",
        top1=top1,
    )


POOLFORMER = {
    "poolformer_s12": _poolformer(_WIDTHS, (2, 2, 6, 2), 1e-5, 11_915_176, 1.812e9, 77.2),
    "poolformer_s24": _poolformer(_WIDTHS, (4, 4, 12, 4), 1e-5, 21_388_968, 3.392e9, 80.3),
    "poolformer_s36": _poolformer(_WIDTHS, (6, 6, 18, 6), 1e-6, 30_862_760, 4.97e9, 81.4),
    "poolformer_m36": _poolformer(_WIDER, (6, 6, 18, 6), 1e-6, 56_172_520, 8.76e9, 82.1),
    "poolformer_m48": _poolformer(_WIDER, (8, 8, 24, 8), 1e-6, 73_473_448, 11.53e9, 82.5),
}


def _cyclemlp(
    widths: Sequence[int], depths: Sequence[int], expansions: Sequence[float], params: int, macs: float, top1: float
) -> Published:
    return Published(
        paper="CycleMLP, arXiv 2107.10224",
        params=params,
        macs=macs,
        model={
            "patch_size": 4,
            "stages": _pyramid(widths, depths, expansions),
            "norm_eps": 1e-5,
            "stem": {"overlap": True},
            "downsample": {"overlap": True},
        },
        token_mixing="cycle",
        channel_mixing="mlp",
        top1=top1,
    )


CYCLEMLP = {
    "cyclemlp_b1": _cyclemlp(_WIDTHS, (2, 2, 4, 2), _FOUR, 15_155_400, 2.12e9, 78.9),
    "cyclemlp_b2": _cyclemlp(_WIDTHS, (2, 3, 10, 3), _FOUR, 26_802_504, 3.88e9, 81.6),
    "cyclemlp_b3": _cyclemlp(_WIDTHS, (3, 4, 18, 3), _EIGHT, 38_385_720, 6.83e9, 82.4),
    "cyclemlp_b4": _cyclemlp(_WIDTHS, (3, 8, 27, 3), _EIGHT, 51_796_552, 10.03e9, 83.0),
    "cyclemlp_b5": _cyclemlp(_WIDER, (3, 4, 24, 3), _FOUR, 75_747_280, 12.23e9, 83.2),
}


def _wavemlp(
    depths: Sequence[int],
    expansions: Sequence[float],
    phase: str,
    norm: str,
    normalised: bool,
    params: int,
    macs: float,
    top1: float,
) -> Published:
    embedding = {"overlap": True, "layers": ["projection", "norm"] if normalised else ["projection"]}
    return Published(
        paper="Wave-MLP, arXiv 2111.12294",
        params=params,
        macs=macs,
        model={
            "patch_size": 4,
            "stages": _pyramid(_WIDTHS, depths, expansions),
            "norm": norm,
            "norm_eps": 1e-5,
            "stem": embedding,
            "downsample": embedding,
        },
        token_mixing={"name": "wave", "phase": phase},
        channel_mixing="mlp",
        top1=top1,
    )


WAVEMLP = {
    "wavemlp_t_dw": _wavemlp((2, 2, 4, 2), _FOUR, "depthwise", "batch", True, 15_286_472, 2.16e9, 80.1),
    "wavemlp_t": _wavemlp((2, 2, 4, 2), _FOUR, "fc", "batch", True, 17_193_160, 2.46e9, 80.9),
    "wavemlp_s": _wavemlp((2, 3, 10, 3), _FOUR, "fc", "group", True, 30_708_040, 4.52e9, 82.9),
    "wavemlp_m": _wavemlp((3, 4, 18, 3), _EIGHT, "fc", "group", False, 44_056_632, 7.87e9, 83.3),
}


def _hiremlp(widths: Sequence[int], depths: Sequence[int], params: int, macs: float, top1: float) -> Published:
    embedding = {"overlap": True, "layers": ["projection", "norm", "relu"]}
    # Each stage has its region, and shifts by 0 and then by the step in turn; the third has three shifts.
    moves = ((4, (0, 2)), (3, (0, 2)), (3, (0, 1, 2)), (2, (0, 1)))
    stages = [
        stage | {"token_mixing": [{"hire": {"region": region, "shift": shift}} for shift in shifts]}
        for stage, (region, shifts) in zip(_pyramid(widths, depths), moves, strict=True)
    ]
    return Published(
        paper="Hire-MLP, arXiv 2108.13341",
        params=params,
        macs=macs,
        model={
            "patch_size": 4,
            "stages": stages,
            "norm": "batch",
            "norm_eps": 1e-5,
            "stem": embedding,
            "downsample": embedding,
        },
        token_mixing="hire",
        channel_mixing="mlp",
        top1=top1,
    )


HIREMLP = {
    "hiremlp_t": _hiremlp(_WIDTHS, (2, 2, 4, 2), 18_041_672, 2.14e9, 79.7),
    "hiremlp_s": _hiremlp(_WIDTHS, (3, 4, 10, 3), 33_113_848, 4.23e9, 82.1),
    "hiremlp_b": _hiremlp(_WIDTHS, (4, 6, 24, 3), 58_226_856, 8.11e9, 83.2),
    "hiremlp_l": _hiremlp(_WIDER, (4, 6, 24, 3), 95_723_944, 13.42e9, 83.8),
}
