"""Every way of mixing across patches. A new one is a class in a file of its own and a line here."""

from explore.architecture.layers import TokenMixing
from explore.architecture.token_mixing.attention import Attention
from explore.architecture.token_mixing.axial_shift import AxialShift
from explore.architecture.token_mixing.convolution import DepthwiseConvolution
from explore.architecture.token_mixing.cycle import CycleFc
from explore.architecture.token_mixing.dynamic import DynaMixer
from explore.architecture.token_mixing.external_attention import ExternalAttention
from explore.architecture.token_mixing.fourier import FourierMixing
from explore.architecture.token_mixing.global_filter import GlobalFilter
from explore.architecture.token_mixing.grouped_mlp import GroupedTokenMlp
from explore.architecture.token_mixing.hire import Hire
from explore.architecture.token_mixing.linear import TokenLinear
from explore.architecture.token_mixing.mlp import TokenMlp
from explore.architecture.token_mixing.monarch import MonarchTokenMlp
from explore.architecture.token_mixing.permutator import Permutator
from explore.architecture.token_mixing.pooling import Pooling
from explore.architecture.token_mixing.repmlp import RepMlp
from explore.architecture.token_mixing.s2 import SpatialShift
from explore.architecture.token_mixing.s2v2 import SpatialShiftV2
from explore.architecture.token_mixing.sparse import SparseMlp
from explore.architecture.token_mixing.spatial_gating import SpatialGating
from explore.architecture.token_mixing.swiglu import TokenSwiGlu
from explore.architecture.token_mixing.wave import Wave

TOKEN_MIXINGS: dict[str, type[TokenMixing]] = {
    "mlp": TokenMlp,
    "swiglu": TokenSwiGlu,
    "grouped_mlp": GroupedTokenMlp,
    "monarch": MonarchTokenMlp,
    "linear": TokenLinear,
    "spatial_gating": SpatialGating,
    "repmlp": RepMlp,
    "attention": Attention,
    "external_attention": ExternalAttention,
    "convolution": DepthwiseConvolution,
    "pooling": Pooling,
    "s2": SpatialShift,
    "s2v2": SpatialShiftV2,
    "axial_shift": AxialShift,
    "cycle": CycleFc,
    "hire": Hire,
    "permutator": Permutator,
    "sparse": SparseMlp,
    "dynamic": DynaMixer,
    "wave": Wave,
    "global_filter": GlobalFilter,
    "fourier": FourierMixing,
}
