"""Every way of mixing across channels. A new one is a class in a file of its own and a line here."""

from explore.architecture.channel_mixing.mlp import ChannelMlp
from explore.architecture.channel_mixing.swiglu import SwiGlu
from explore.architecture.layers import ChannelMixing

CHANNEL_MIXINGS: dict[str, type[ChannelMixing]] = {
    "mlp": ChannelMlp,
    "swiglu": SwiGlu,
}
