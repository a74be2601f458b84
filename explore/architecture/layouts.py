"""Every kind of checkpoint that can be read. A further one is a table beside its family and a line in the dict there.

What a table is made of is said in `families.layout`.
"""

from explore.architecture.families import isotropic_layouts, pyramid_layouts
from explore.architecture.families.layout import Layout

LAYOUTS: dict[str, Layout] = {**isotropic_layouts.LAYOUTS, **pyramid_layouts.LAYOUTS}
