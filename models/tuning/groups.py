"""Features in groups that a search switches on and off together: by where their numbers come from."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.features.definitions import FEATURES, Feature
from lodestar.models.parameters import INPUTS

__all__ = ["GROUPS", "RELATIVE", "features_of", "groups_in"]

Floats = NDArray[np.float64]

RELATIVE: Final = "relative"
#: Group → the snapshot fields that its features need. 'relative' are those that compare the loads of a
#: decision's candidates, which the default inputs leave out.
GROUPS: Final[dict[str, frozenset[str]]] = {
    "cache": frozenset({schema.HIT_RATIO, schema.LAST_ACCESS_AGE_S}),
    "engine": frozenset({schema.KV_USAGE_RATIO, schema.RUNNING_REQUESTS, schema.WAITING_REQUESTS}),
    "counters": frozenset(
        {
            schema.INFLIGHT_REQUESTS,
            schema.INFLIGHT_PREFILL_REQUESTS,
            schema.INFLIGHT_DECODE_REQUESTS,
            schema.PREFILL_TOKENS,
            schema.DECODE_TOKENS,
        }
    ),
    RELATIVE: frozenset(),
}


def features_of(off: frozenset[str]) -> tuple[str, ...]:
    """Return the features that need none of the groups in `off`; those of the request itself always stay.

    >>> features_of(frozenset({"relative", "engine", "counters"}))[:3]
    ('prompt_tokens', 'hit_ratio', 'fresh_hit_ratio')
    >>> features_of(frozenset({"relative"})) == INPUTS
    True
    >>> features_of(frozenset(GROUPS))
    ('prompt_tokens',)
    """
    return tuple(feature.name for feature in FEATURES if not off & _groups(feature))


def groups_in(features: Floats) -> tuple[str, ...]:
    """Return the groups of which these rows (n, len(FEATURES)) have any number: the others make no difference.

    >>> from lodestar.features.definitions import FEATURE_NAMES
    >>> features = np.full((2, len(FEATURES)), np.nan)
    >>> features[:, FEATURE_NAMES.index("hit_ratio")] = 0.5
    >>> groups_in(features)
    ('cache',)
    """
    known = (~np.isnan(features)).sum(axis=0) > 0
    present = frozenset[str]().union(*(_groups(f) for f, seen in zip(FEATURES, known.tolist(), strict=True) if seen))
    return tuple(name for name in GROUPS if name in present)


def _groups(feature: Feature) -> frozenset[str]:
    relative = set() if feature.name in INPUTS else {RELATIVE}
    return frozenset(relative | {name for name, fields in GROUPS.items() if fields & set(feature.fields)})
