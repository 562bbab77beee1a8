"""Results as JSON has them: lists for tuples, words for infinity, nothing for what is no number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["json_ready"]


def json_ready(value: Any) -> Any:
    """Return a value of dictionaries, lists and numbers that JSON gives back as it is.

    >>> json_ready({"lambda_": math.inf, "ci95": (1.0, math.nan)})
    {'lambda_': 'inf', 'ci95': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(name): json_ready(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
