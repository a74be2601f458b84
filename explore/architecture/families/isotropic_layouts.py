"""The names in checkpoints of models with one stage: one table for each publisher."""

from torch import Tensor, nn

from explore.architecture.families.layout import Layout, Source, under

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
    block=under(
        "MixerBlock_{index}/",
        {
            "token.norm.weight": "LayerNorm_0/scale",
            "token.norm.bias": "LayerNorm_0/bias",
            "token.mixing.expand.weight": "token_mixing/Dense_0/kernel",
            "token.mixing.expand.bias": "token_mixing/Dense_0/bias",
            "token.mixing.contract.weight": "token_mixing/Dense_1/kernel",
            "token.mixing.contract.bias": "token_mixing/Dense_1/bias",
            "channel.norm.weight": "LayerNorm_1/scale",
            "channel.norm.bias": "LayerNorm_1/bias",
            "channel.mixing.expand.weight": "channel_mixing/Dense_0/kernel",
            "channel.mixing.expand.bias": "channel_mixing/Dense_0/bias",
            "channel.mixing.contract.weight": "channel_mixing/Dense_1/kernel",
            "channel.mixing.contract.bias": "channel_mixing/Dense_1/bias",
        },
    ),
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
    block=under(
        "Mixer/encoderblock_{index}/",
        {
            "token.norm.weight": "LayerNorm_0/scale",
            "token.norm.bias": "LayerNorm_0/bias",
            "token.mixing.expand.weight": "token_mixing_phase_0/kernel1",
            "token.mixing.expand.bias": "token_mixing_phase_0/bias1",
            "token.mixing.contract.weight": "token_mixing_phase_0/kernel2",
            "token.mixing.contract.bias": "token_mixing_phase_0/bias2",
            "channel.norm.weight": "LayerNorm_1/scale",
            "channel.norm.bias": "LayerNorm_1/bias",
            "channel.mixing.expand.weight": "channel_mixing_phase_0/kernel1",
            "channel.mixing.expand.bias": "channel_mixing_phase_0/bias1",
            "channel.mixing.contract.weight": "channel_mixing_phase_0/kernel2",
            "channel.mixing.contract.bias": "channel_mixing_phase_0/bias2",
        },
    ),
    channels_last=True,
)

_TIMM_MIXER = {"stem.projection": "stem.proj", "norm": "norm", "head": "head"}

# MLP-Mixer of timm.
MIXER_TIMM = Layout(
    outside=_TIMM_MIXER,
    block=under(
        "blocks.{index}.",
        {
            "token.norm": "norm1",
            "token.mixing.expand": "mlp_tokens.fc1",
            "token.mixing.contract": "mlp_tokens.fc2",
            "channel.norm": "norm2",
            "channel.mixing.expand": "mlp_channels.fc1",
            "channel.mixing.contract": "mlp_channels.fc2",
        },
    ),
)


def _first_half(tensor: Tensor, module: nn.Module) -> Tensor:
    return tensor.chunk(2)[0]


def _second_half(tensor: Tensor, module: nn.Module) -> Tensor:
    return tensor.chunk(2)[1]


# gMixer of timm, whose first products give the values and behind them the gates.
GMIXER_TIMM = Layout(
    outside=_TIMM_MIXER,
    block=under(
        "blocks.{index}.",
        {
            "token.norm": "norm1",
            "token.mixing.value": Source("mlp_tokens.fc1", _first_half),
            "token.mixing.gate": Source("mlp_tokens.fc1", _second_half),
            "token.mixing.contract": "mlp_tokens.fc2",
            "channel.norm": "norm2",
            "channel.mixing.value": Source("mlp_channels.fc1", _first_half),
            "channel.mixing.gate": Source("mlp_channels.fc1", _second_half),
            "channel.mixing.contract": "mlp_channels.fc2",
        },
    ),
)

# gMLP of timm; the authors published no code.
GMLP_TIMM = Layout(
    outside=_TIMM_MIXER,
    block=under(
        "blocks.{index}.",
        {
            "token.norm": "norm",
            "token.mixing.expand": "mlp_channels.fc1",
            "token.mixing.norm": "mlp_channels.gate.norm",
            "token.mixing.gate": "mlp_channels.gate.proj",
            "token.mixing.contract": "mlp_channels.fc2",
        },
    ),
)

# ResMLP, github.com/facebookresearch/deit.
RESMLP = Layout(
    outside={
        "stem.projection": "patch_embed.proj",
        "norm.weight": "norm.alpha",
        "norm.bias": "norm.beta",
        "head": "head",
    },
    block=under(
        "blocks.{index}.",
        {
            "token.norm.weight": "norm1.alpha",
            "token.norm.bias": "norm1.beta",
            "token.mixing.linear": "attn",
            "token.scale.factor": "gamma_1",
            "channel.norm.weight": "norm2.alpha",
            "channel.norm.bias": "norm2.beta",
            "channel.mixing.expand": "mlp.fc1",
            "channel.mixing.contract": "mlp.fc2",
            "channel.scale.factor": "gamma_2",
        },
    ),
)

# The same networks in timm.
RESMLP_TIMM = Layout(
    outside={**RESMLP.outside, "stem.projection": "stem.proj"},
    block={
        **RESMLP.block,
        **under(
            "blocks.{index}.",
            {
                "token.mixing.linear": "linear_tokens",
                "token.scale.factor": "ls1",
                "channel.mixing.expand": "mlp_channels.fc1",
                "channel.mixing.contract": "mlp_channels.fc2",
                "channel.scale.factor": "ls2",
            },
        ),
    },
)

# ViT of timm, which packs query, key and value like `attention` here.
VIT_TIMM = Layout(
    outside={
        "class_token": "cls_token",
        "positions": "pos_embed",
        "stem.projection": "patch_embed.proj",
        "norm": "norm",
        "head": "head",
    },
    block=under(
        "blocks.{index}.",
        {
            "token.norm": "norm1",
            "token.mixing.query_key_value": "attn.qkv",
            "token.mixing.projection": "attn.proj",
            "channel.norm": "norm2",
            "channel.mixing.expand": "mlp.fc1",
            "channel.mixing.contract": "mlp.fc2",
        },
    ),
)

# Isotropic ConvNeXt, github.com/facebookresearch/ConvNeXt.
CONVNEXT = Layout(
    outside={"stem.projection": "stem", "norm": "norm", "head": "head"},
    block=under(
        "blocks.{index}.",
        {
            "mixing.token.filter": "dwconv",
            "mixing.norm": "norm",
            "mixing.channel.expand": "pwconv1",
            "mixing.channel.contract": "pwconv2",
        },
    ),
)

_CONVMIXER = {
    "token.mixing.token.filter": "0.fn.0",
    "token.mixing.norm": "0.fn.2",
    "channel.linear": "1",
    "norm": "3",
}

# ConvMixer, github.com/locuslab/convmixer: layers with running numbers, three of them the stem.
CONVMIXER = Layout(
    outside={"stem.projection": "0", "stem.norm": "2", "head": "{blocks+5}"},
    block=under("{index+3}.", _CONVMIXER),
)

# The same networks in timm.
CONVMIXER_TIMM = Layout(
    outside={"stem.projection": "stem.0", "stem.norm": "stem.2", "head": "head"},
    block=under("blocks.{index}.", _CONVMIXER),
)

# GFNet, github.com/raoyongming/GFNet.
GFNET = Layout(
    outside={"positions": "pos_embed", "stem.projection": "patch_embed.proj", "norm": "norm", "head": "head"},
    block=under(
        "blocks.{index}.",
        {
            "norm": "norm1",
            "mixing.token.weight": "filter.complex_weight",
            "mixing.norm": "norm2",
            "mixing.channel.expand": "mlp.fc1",
            "mixing.channel.contract": "mlp.fc2",
        },
    ),
)

LAYOUTS: dict[str, Layout] = {
    "mixer": MIXER,
    "mixer_before_linen": MIXER_BEFORE_LINEN,
    "mixer_timm": MIXER_TIMM,
    "gmixer_timm": GMIXER_TIMM,
    "gmlp_timm": GMLP_TIMM,
    "resmlp": RESMLP,
    "resmlp_timm": RESMLP_TIMM,
    "vit_timm": VIT_TIMM,
    "convnext": CONVNEXT,
    "convmixer": CONVMIXER,
    "convmixer_timm": CONVMIXER_TIMM,
    "gfnet": GFNET,
}
