"""Student's interval of a mean over seeds."""

from typing import Any

import numpy as np
from scipy.special import stdtrit


def half_width(deviation: Any, count: Any, level: float) -> Any:
    """Half the width of the interval of `1 - level` of a mean of `count` values with this standard deviation.

    Both may be numbers, arrays or columns of a table; of one value alone there is no interval, and the half is missing.
    Student (1908), "The probable error of a mean".
    """
    return deviation * stdtrit(count - 1, 1 - level / 2) / np.sqrt(count)
