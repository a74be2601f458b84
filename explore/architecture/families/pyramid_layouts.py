"""The names in checkpoints of models with several stages: one table for each publisher."""

from collections.abc import Mapping

from torch import Tensor, nn

from explore.architecture.families.layout import Layout, Source, under

_NORMS_AND_MLP = {
    "token.norm": "norm1",
    "channel.norm": "norm2",
    "channel.mixing.expand": "mlp.fc1",
    "channel.mixing.contract": "mlp.fc2",
}
_REWEIGHTED = {
    "token.mixing.reweighting.expand": "attn.reweight.fc1",
    "token.mixing.reweighting.contract": "attn.reweight.fc2",
    "token.mixing.projection": "attn.proj",
}


def _network(block: Mapping[str, str | Source], *, normed: bool = False, unused: tuple[str, ...] = ()) -> Layout:
    """The layout of ViP and its followers: stages and downsamples in one list called `network`."""
    embedding = {"projection": "proj"} | ({"norm": "norm"} if normed else {})
    return Layout(
        outside={f"stem.{ours}": f"patch_embed.{theirs}" for ours, theirs in embedding.items()}
        | {"norm": "norm", "head": "head"},
        block=under("network.{place}.{block}.", {**_NORMS_AND_MLP, **block}),
        downsample=under("network.{place-1}.", embedding),
        unused=unused,
    )


# PoolFormer, github.com/sail-sg/poolformer.
POOLFORMER = _network({"token.scale.factor": "layer_scale_1", "channel.scale.factor": "layer_scale_2"})

# ViP, github.com/Andrew-Qibin/VisionPermutator.
VIP = _network(
    {
        **_REWEIGHTED,
        "token.mixing.along_height": "attn.mlp_h",
        "token.mixing.along_width": "attn.mlp_w",
        "token.mixing.channels": "attn.mlp_c",
    }
)

# CycleMLP, github.com/ShoufaChen/CycleMLP, whose `h` reads along the width.
CYCLEMLP = _network(
    {
        **_REWEIGHTED,
        "token.mixing.along_width": "attn.sfc_h",
        "token.mixing.along_height": "attn.sfc_w",
        "token.mixing.channels": "attn.mlp_c",
    },
    unused=(".offset",),
)

# DynaMixer, github.com/ziyuwwang/DynaMixer.
DYNAMIXER = _network(
    {
        **_REWEIGHTED,
        "token.mixing.column.compress": "attn.mix_h.compress",
        "token.mixing.column.generate": "attn.mix_h.generate",
        "token.mixing.column.projection": "attn.mix_h.out",
        "token.mixing.row.compress": "attn.mix_w.compress",
        "token.mixing.row.generate": "attn.mix_w.generate",
        "token.mixing.row.projection": "attn.mix_w.out",
        "token.mixing.channels": "attn.mlp_c",
    }
)

_WAVES = {
    **_REWEIGHTED,
    "token.mixing.row.amplitude": "attn.fc_h",
    "token.mixing.row.phase.estimate": "attn.theta_h_conv.0",
    "token.mixing.row.phase.norm": "attn.theta_h_conv.1",
    "token.mixing.row.filter": "attn.tfc_h",
    "token.mixing.column.amplitude": "attn.fc_w",
    "token.mixing.column.phase.estimate": "attn.theta_w_conv.0",
    "token.mixing.column.phase.norm": "attn.theta_w_conv.1",
    "token.mixing.column.filter": "attn.tfc_w",
    "token.mixing.channels": "attn.fc_c",
}

# Wave-MLP, github.com/huawei-noah/CV-Backbones, wavemlp_pytorch. Its `h` adds up along the width.
WAVEMLP = _network(_WAVES, normed=True)


def _patch_by_patch(tensor: Tensor, module: nn.Module) -> Tensor:
    """From the patches of one channel one behind the other, to the channels of one patch, for an axis of a region."""
    assert isinstance(module, nn.Linear)
    hidden, joined = sorted((module.in_features, module.out_features))
    region = joined // (2 * hidden)  # the hidden layer has half the channels of a patch
    if tensor.shape[0] == joined:
        return tensor.reshape(-1, region, tensor[0].numel()).transpose(0, 1).reshape(tensor.shape)
    return tensor.reshape(hidden, -1, region).transpose(1, 2).reshape(tensor.shape)


# Hire-MLP, github.com/ggjy/Hire-Wave-MLP.pytorch.
HIREMLP = _network(
    {
        **_REWEIGHTED,
        "token.mixing.along_height.expand": Source("attn.mlp_h1", _patch_by_patch),
        "token.mixing.along_height.norm": "attn.mlp_h1_norm",
        "token.mixing.along_height.contract": Source("attn.mlp_h2", _patch_by_patch),
        "token.mixing.along_width.expand": Source("attn.mlp_w1", _patch_by_patch),
        "token.mixing.along_width.norm": "attn.mlp_w1_norm",
        "token.mixing.along_width.contract": Source("attn.mlp_w2", _patch_by_patch),
        "token.mixing.channels": "attn.mlp_c",
    },
    normed=True,
)


def _row_by_row(tensor: Tensor, module: nn.Module) -> Tensor:
    """From four patches column by column to row by row, on the axis that joins their channels."""
    patches = tensor.reshape(4, -1) if tensor.ndim == 1 else tensor.reshape(tensor.shape[0], 4, -1)
    return patches[..., [0, 2, 1, 3], :].reshape(tensor.shape)


# AS-MLP, github.com/svip-lab/AS-MLP; a downsample belongs to the stage before it.
ASMLP = Layout(
    outside={
        "stem.projection": "patch_embed.proj",
        "stem.norm": "patch_embed.norm",
        "norm": "norm",
        "head": "head",
    },
    block=under(
        "layers.{stage}.blocks.{block}.",
        {
            **_NORMS_AND_MLP,
            "token.mixing.input": "axial_shift.conv1",
            "token.mixing.input_norm": "axial_shift.norm1",
            "token.mixing.along_width": "axial_shift.conv2_1",
            "token.mixing.along_height": "axial_shift.conv2_2",
            "token.mixing.output_norm": "axial_shift.norm2",
            "token.mixing.output": "axial_shift.conv3",
        },
    ),
    downsample=under(
        "layers.{stage-1}.downsample.",
        {"norm": Source("norm", _row_by_row), "projection": Source("reduction", _row_by_row)},
    ),
)

# sMLPNet, github.com/microsoft/SPACH, whose `h` maps along the width.
SMLP = Layout(
    outside={"stem.projection": "to_patch_embedding.0.0", "norm": "batch_norm", "head": "mlp_head.0"},
    block={
        "token.mixing.norm": "token_mix.{index}.0.conv_merge.BN",
        "token.mixing.filter": "token_mix.{index}.0.conv_merge.Conv",
        "token.mixing.sparse_norm": "token_mix.{index}.1.BN",
        "token.mixing.row": "token_mix.{index}.1.proj_h",
        "token.mixing.column": "token_mix.{index}.1.proh_w",
        "token.mixing.fuse": "token_mix.{index}.1.fuse",
        "channel.norm": "channel_mix.{index}.1",
        "channel.mixing.expand": "channel_mix.{index}.2.net.0",
        "channel.mixing.contract": "channel_mix.{index}.2.net.3",
    },
    downsample={"projection": "to_patch_embedding.{stage}.0"},
)

# RepMLPNet, github.com/DingXiaoH/RepMLP, before its locality is injected.
REPMLP = Layout(
    outside={
        "stem.projection": "conv_embedding.conv",
        "stem.norm": "conv_embedding.bn",
        "norm": "head_norm",
        "head": "head",
    },
    block=under(
        "stages.{stage}.{block}.",
        {
            "token.norm": "prebn1",
            "token.mixing.gate.expand": "repmlp_block.gp.fc1",
            "token.mixing.gate.contract": "repmlp_block.gp.fc2",
            "token.mixing.channel": "repmlp_block.fc3",
            "token.mixing.channel_norm": "repmlp_block.fc3_bn",
            "token.mixing.local": "repmlp_block.repconv3.conv",
            "token.mixing.local_norm": "repmlp_block.repconv3.bn",
            "token.mixing.point": "repmlp_block.repconv1.conv",
            "token.mixing.point_norm": "repmlp_block.repconv1.bn",
            "channel.norm": "prebn2",
            "channel.mixing.expand": "ffn_block.ffn_fc1.conv",
            "channel.mixing.expand_norm": "ffn_block.ffn_fc1.bn",
            "channel.mixing.contract": "ffn_block.ffn_fc2.conv",
            "channel.mixing.contract_norm": "ffn_block.ffn_fc2.bn",
        },
    ),
    downsample=under("embeds.{stage-1}.", {"projection": "conv", "norm": "bn"}),
)

LAYOUTS: dict[str, Layout] = {
    "poolformer": POOLFORMER,
    "vip": VIP,
    "cyclemlp": CYCLEMLP,
    "dynamixer": DYNAMIXER,
    "wavemlp": WAVEMLP,
    "hiremlp": HIREMLP,
    "asmlp": ASMLP,
    "smlp": SMLP,
    "repmlp": REPMLP,
}
