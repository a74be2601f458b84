"""Published models by name: what they are made of, and the figures to check them against.

The rows themselves are in `families`, here are they by name.
"""

from explore.architecture.catalog import Mixing, one_of
from explore.architecture.families import isotropic, pyramid
from explore.architecture.families.row import Published
from explore.architecture.spec import Architecture, Model, architecture, patch_sizes

COLOURS = 3

PUBLISHED: dict[str, Published] = {
    **isotropic.MIXER,
    **isotropic.VIT,
    **isotropic.CONVNEXT,
    **isotropic.CONVMIXER,
    **isotropic.S2MLP,
    **isotropic.RESMLP,
    **isotropic.GMLP,
    **isotropic.GFNET,
    **isotropic.GMIXER,
    **isotropic.EXTERNAL,
    **pyramid.S2MLPV2,
    **pyramid.VIP,
    **pyramid.DYNAMIXER,
    **pyramid.ASMLP,
    **pyramid.SMLP,
    **pyramid.REPMLP,
    **pyramid.POOLFORMER,
    **pyramid.CYCLEMLP,
    **pyramid.WAVEMLP,
    **pyramid.HIREMLP,
}


def published(name: str) -> Architecture:
    """The architecture of a published model, for colour images; raises `ValueError` for an unknown name."""
    row = PUBLISHED[one_of("a published model", name, PUBLISHED)]
    return adapted(name, image_size=row.image_size, channels=COLOURS, classes=row.classes)


def adapted(name: str, *, image_size: int, channels: int, classes: int) -> Architecture:
    """A published model for other images: its patch size is the largest up to the published one that fits them.

    Raises `ValueError` where none does, and for an unknown name.
    """
    row = PUBLISHED[one_of("a published model", name, PUBLISHED)]
    return architecture(
        adapted_model(name, image_size),
        Mixing.of(row.token_mixing),
        Mixing.of(row.channel_mixing),
        image_size=image_size,
        channels=channels,
        classes=classes,
    )


def adapted_model(name: str, image_size: int) -> Model:
    """The options of a published model, with the largest patch size up to the published one that fits other images."""
    row = PUBLISHED[name]
    model = Model.of(row.model)
    downsamples = sum(stage.get("downsample", True) for stage in model.stages[1:])
    fitting = [size for size in patch_sizes(image_size, downsamples) if size <= model.patch_size]
    # Where none fits, the refusal of the published one says what would.
    return Model.of({**row.model, "patch_size": max(fitting, default=model.patch_size)})
