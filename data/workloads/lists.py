"""Arrays with offsets as columns of lists."""

from __future__ import annotations

from typing import cast

import polars as pl
import pyarrow as pa

from lodestar.data.log import Ints

__all__ = ["list_column"]


def list_column(values: Ints, offsets: Ints) -> pl.Series:
    """Make row i of ``values[offsets[i]:offsets[i + 1]]``.

    >>> import numpy as np
    >>> list_column(np.array([1, 2, 3]), np.array([0, 2, 2, 3])).to_list()
    [[1, 2], [], [3]]
    """
    begin, end = int(offsets[0]), int(offsets[-1])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets - begin), pa.array(values[begin:end]))
    return cast(pl.Series, pl.from_arrow(lists))
