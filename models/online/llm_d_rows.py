"""The rows of llm-d's latency predictor as features: each row is a request with the one candidate it tells of.

This is how `lodestar ingest` reads them (`data/formats/llm_d.py`, whose names of fields are used here), so that what is
trained from a log, trained online and served is the same. A row names neither its request nor the other instances, so
nothing is compared between rows: `hit_above_best` and its like are 0. llm-d sends one bulk for several requests, and a
training row comes without the candidates that were not chosen: rows put together as candidates of one request would
differ from every row that the model can have learned from.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.formats.llm_d import LABELS, SNAPSHOT
from lodestar.data.jit import jit
from lodestar.data.schema import SNAPSHOT_FIELDS
from lodestar.features.definitions import FEATURES, candidate_features

__all__ = ["INPUT_KEYS", "LABEL_KEYS", "PROMPT_KEY", "UNFILLED", "llm_d_features"]

Floats = NDArray[np.float64]

PROMPT_KEY: Final = "input_token_length"
#: Keys of a row that features are made of, in the order in which `llm_d_features` takes them.
INPUT_KEYS: Final = (PROMPT_KEY, *SNAPSHOT.values())
#: Keys of the labels: TTFT, then TPOT; 0 means that the row has none.
LABEL_KEYS: Final = tuple(LABELS.values())
#: Features that no row of llm-d can fill: they are NaN in training and serving alike.
UNFILLED: Final = tuple(feature.name for feature in FEATURES if not set(feature.fields) <= set(SNAPSHOT))

_PLACES: Final = [SNAPSHOT_FIELDS.index(field) for field in SNAPSHOT]


def llm_d_features(inputs: Floats) -> Floats:
    """Return the features (n, len(FEATURES)) of rows whose columns are `INPUT_KEYS`, NaN where a row does not say.

    >>> row = {"input_token_length": 1000.0, "prefix_cache_score": 0.25, "prefill_tokens_in_flight": 500.0}
    >>> features = llm_d_features(np.array([[row.get(key, 0.0) for key in INPUT_KEYS]]))
    >>> features[0, [feature.name for feature in FEATURES].index("tokens_to_first_token")].item()
    1250.0
    """
    snapshot = np.full((len(inputs), len(SNAPSHOT_FIELDS)), np.nan)
    snapshot[:, _PLACES] = inputs[:, 1:]
    prompt_tokens = np.where(inputs[:, 0] > 0, inputs[:, 0], np.nan)  # 0 counts as unknown, as everywhere
    out = np.empty((len(inputs), len(FEATURES)))
    _fill(prompt_tokens, snapshot, out)
    return out


@jit
def _fill(prompt_tokens: Floats, snapshot: Floats, out: Floats) -> None:
    for i in range(len(out)):
        candidate_features(prompt_tokens[i], snapshot[i : i + 1], out[i : i + 1])
