"""Intervals of means over seeds, for pictures and tables: of each mean alone, and without what the seeds share."""

from math import sqrt

import numpy as np
import pandas as pd

from explore.search.student import half_width


def student(values: pd.DataFrame, level: float) -> "pd.Series[float]":
    """Return half the width of Student's interval of the mean of each column; of `1 - level`.

    Missing values are left out; of fewer than two there is none, and the half is missing.
    """
    half: pd.Series[float] = half_width(values.std(), values.count(), level)
    return half


def paired(values: pd.DataFrame, level: float) -> "pd.Series[float]":
    """Return half the width of the interval of each column's mean without what the rows have in common.

    Rows are seeds, columns cells of a design where every seed has been everywhere; of `1 - level`. Missing where there
    is only one cell. Cousineau (2005), "Confidence intervals in within-subject designs", with the correction of Morey
    (2008). Where there are two, it is the interval of their difference in pairs divided by the square root of two.
    """
    cells = values.shape[1]
    if cells < 2:
        return pd.Series(np.nan, index=values.columns)
    return student(values.sub(values.mean(axis=1), axis=0), level) * sqrt(cells / (cells - 1))
