"""Every way of mixing across channels. A new one is a class in a file of its own and a line here."""

from explore.architecture.channel_mixing.geglu import GeGlu
from explore.architecture.channel_mixing.grouped import GroupedMlp
from explore.architecture.channel_mixing.inverted import InvertedMlp
from explore.architecture.channel_mixing.linear import ChannelLinear
from explore.architecture.channel_mixing.low_rank import LowRankMlp
from explore.architecture.channel_mixing.mlp import ChannelMlp
from explore.architecture.channel_mixing.moe import MixtureOfExperts
from explore.architecture.channel_mixing.monarch import MonarchMlp
from explore.architecture.channel_mixing.none import NoChannelMixing
from explore.architecture.channel_mixing.swiglu import SwiGlu
from explore.architecture.layers import ChannelMixing

CHANNEL_MIXINGS: dict[str, type[ChannelMixing]] = {
    "mlp": ChannelMlp,
    "swiglu": SwiGlu,
    "geglu": GeGlu,
    "low_rank": LowRankMlp,
    "grouped": GroupedMlp,
    "monarch": MonarchMlp,
    "inverted": InvertedMlp,
    "moe": MixtureOfExperts,
    "linear": ChannelLinear,
    "none": NoChannelMixing,
}
