"""How published checkpoints name their tensors: one small table for each kind of checkpoint.

A table maps names of this package to those in the file. A name on the left is a module of the network, of a block or of
a downsample, or one of its tensors; on the right these words are filled in:

- `{index}`: number of the block in the whole network,
- `{stage}`, `{block}`: number of the stage, and of the block in it,
- `{place}`: place of the stage in a list that holds the downsamples, too, each in front of its stage; in the table of a
  downsample, its own place.

A further kind of checkpoint needs a table and a line in `LAYOUTS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names in one kind of checkpoint.

    `outside` are the modules around the blocks. `channels_last` says that kernels are stored as Flax does, inputs
    before outputs. `converted` are tensors, by the end of their name here, which need more than another shape.
    """

    outside: Mapping[str, str]
    block: Mapping[str, str]
    downsample: Mapping[str, str] = field(default_factory=dict)
    channels_last: bool = False
    converted: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)


# MLP-Mixer, github.com/google-research/vision_transformer: gs://mixer_models/{imagenet1k,imagenet21k}/Mixer-*.npz.
MIXER = Layout(
    outside={
        "stem.projection.weight": "stem/kernel",
        "stem.projection.bias": "stem/bias",
        "norm.weight": "pre_head_layer_norm/scale",
        "norm.bias": "pre_head_layer_norm/bias",
        "head.weight": "head/kernel",
        "head.bias": "head/bias",
    },
    block={
        "token.norm.weight": "MixerBlock_{index}/LayerNorm_0/scale",
        "token.norm.bias": "MixerBlock_{index}/LayerNorm_0/bias",
        "token.mixing.expand.weight": "MixerBlock_{index}/token_mixing/Dense_0/kernel",
        "token.mixing.expand.bias": "MixerBlock_{index}/token_mixing/Dense_0/bias",
        "token.mixing.contract.weight": "MixerBlock_{index}/token_mixing/Dense_1/kernel",
        "token.mixing.contract.bias": "MixerBlock_{index}/token_mixing/Dense_1/bias",
        "channel.norm.weight": "MixerBlock_{index}/LayerNorm_1/scale",
        "channel.norm.bias": "MixerBlock_{index}/LayerNorm_1/bias",
        "channel.mixing.expand.weight": "MixerBlock_{index}/channel_mixing/Dense_0/kernel",
        "channel.mixing.expand.bias": "MixerBlock_{index}/channel_mixing/Dense_0/bias",
        "channel.mixing.contract.weight": "MixerBlock_{index}/channel_mixing/Dense_1/kernel",
        "channel.mixing.contract.bias": "MixerBlock_{index}/channel_mixing/Dense_1/bias",
    },
    channels_last=True,
)

# The same checkpoints before the linen interface of Flax, as github.com/google-research/big_vision reads them.
MIXER_BEFORE_LINEN = Layout(
    outside={
        **MIXER.outside,
        "stem.projection.weight": "embedding/kernel",
        "stem.projection.bias": "embedding/bias",
        "norm.weight": "Mixer/encoder_norm/scale",
        "norm.bias": "Mixer/encoder_norm/bias",
    },
    block={
        "token.norm.weight": "Mixer/encoderblock_{index}/LayerNorm_0/scale",
        "token.norm.bias": "Mixer/encoderblock_{index}/LayerNorm_0/bias",
        "token.mixing.expand.weight": "Mixer/encoderblock_{index}/token_mixing_phase_0/kernel1",
        "token.mixing.expand.bias": "Mixer/encoderblock_{index}/token_mixing_phase_0/bias1",
        "token.mixing.contract.weight": "Mixer/encoderblock_{index}/token_mixing_phase_0/kernel2",
        "token.mixing.contract.bias": "Mixer/encoderblock_{index}/token_mixing_phase_0/bias2",
        "channel.norm.weight": "Mixer/encoderblock_{index}/LayerNorm_1/scale",
        "channel.norm.bias": "Mixer/encoderblock_{index}/LayerNorm_1/bias",
        "channel.mixing.expand.weight": "Mixer/encoderblock_{index}/channel_mixing_phase_0/kernel1",
        "channel.mixing.expand.bias": "Mixer/encoderblock_{index}/channel_mixing_phase_0/bias1",
        "channel.mixing.contract.weight": "Mixer/encoderblock_{index}/channel_mixing_phase_0/kernel2",
        "channel.mixing.contract.bias": "Mixer/encoderblock_{index}/channel_mixing_phase_0/bias2",
    },
    channels_last=True,
)

# MLP-Mixer and gMixer of timm.
MIXER_TIMM = Layout(
    outside={"stem.projection": "stem.proj", "norm": "norm", "head": "head"},
    block={
        "token.norm": "blocks.{index}.norm1",
        "token.mixing.expand": "blocks.{index}.mlp_tokens.fc1",
        "token.mixing.contract": "blocks.{index}.mlp_tokens.fc2",
        "channel.norm": "blocks.{index}.norm2",
        "channel.mixing.expand": "blocks.{index}.mlp_channels.fc1",
        "channel.mixing.contract": "blocks.{index}.mlp_channels.fc2",
    },
)

# ResMLP, github.com/facebookresearch/deit.
RESMLP = Layout(
    outside={
        "stem.projection": "patch_embed.proj",
        "norm.weight": "norm.alpha",
        "norm.bias": "norm.beta",
        "head": "head",
    },
    block={
        "token.norm.weight": "blocks.{index}.norm1.alpha",
        "token.norm.bias": "blocks.{index}.norm1.beta",
        "token.mixing.projection": "blocks.{index}.attn",
        "token.scale.factor": "blocks.{index}.gamma_1",
        "channel.norm.weight": "blocks.{index}.norm2.alpha",
        "channel.norm.bias": "blocks.{index}.norm2.beta",
        "channel.mixing.expand": "blocks.{index}.mlp.fc1",
        "channel.mixing.contract": "blocks.{index}.mlp.fc2",
        "channel.scale.factor": "blocks.{index}.gamma_2",
    },
)

# PoolFormer, github.com/sail-sg/poolformer.
POOLFORMER = Layout(
    outside={"stem.projection": "patch_embed.proj", "norm": "norm", "head": "head"},
    block={
        "token.norm": "network.{place}.{block}.norm1",
        "token.scale.factor": "network.{place}.{block}.layer_scale_1",
        "channel.norm": "network.{place}.{block}.norm2",
        "channel.mixing.expand": "network.{place}.{block}.mlp.fc1",
        "channel.mixing.contract": "network.{place}.{block}.mlp.fc2",
        "channel.scale.factor": "network.{place}.{block}.layer_scale_2",
    },
    downsample={"projection": "network.{place}.proj"},
)

LAYOUTS: dict[str, Layout] = {
    "mixer": MIXER,
    "mixer_before_linen": MIXER_BEFORE_LINEN,
    "mixer_timm": MIXER_TIMM,
    "resmlp": RESMLP,
    "poolformer": POOLFORMER,
}
