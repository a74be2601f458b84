"""Every way of mixing across patches. A new one is a class in a file of its own and a line here."""

from explore.architecture.layers import TokenMixing
from explore.architecture.token_mixing.attention import Attention
from explore.architecture.token_mixing.convolution import DepthwiseConvolution
from explore.architecture.token_mixing.mlp import TokenMlp
from explore.architecture.token_mixing.pooling import Pooling

TOKEN_MIXINGS: dict[str, type[TokenMixing]] = {
    "mlp": TokenMlp,
    "attention": Attention,
    "convolution": DepthwiseConvolution,
    "pooling": Pooling,
}
