"""The newest rows that llm-d sent to learn from, as its pages of status show them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["TARGET_NAMES", "WINDOW_KEYS", "LlmDWindow"]

Floats = NDArray[np.float64]

TARGET_NAMES: Final = ("ttft", "tpot")
#: What a row of the window shows, before its latency.
WINDOW_KEYS: Final = ("num_request_waiting", "kv_cache_percentage", "prefix_cache_score")
#: Lowest number of waiting requests of each of llm-d's queue buckets but the first.
_QUEUES: Final = (1, 3, 6, 11)
_KV_BUCKETS, _PREFIX_BUCKETS = 20, 4


class LlmDWindow:
    """The last rows with a TTFT and the last with a TPOT, and how well each of the last batches had been predicted.

    A row is the values of `WINDOW_KEYS` and the latency in ms. Several threads may use it.

    >>> window = LlmDWindow()
    >>> window.add("ttft", np.array([[0.0, 0.27, 0.5, 120.0], [4.0, 1.0, 1.0, 90.0]]))
    >>> window.buckets()
    {'queue_0_cache_5_prefix_2': 1, 'queue_2_cache_19_prefix_3': 1}
    """

    def __init__(self, most_rows: int = 20_000, most_scores: int = 5) -> None:
        self._lock = threading.RLock()
        self._kept = {name: np.empty((most_rows, len(WINDOW_KEYS) + 1)) for name in TARGET_NAMES}
        self._came = dict.fromkeys(TARGET_NAMES, 0)
        self._scores: dict[str, deque[float]] = {name: deque(maxlen=most_scores) for name in TARGET_NAMES}

    def add(self, target: str, rows: Floats) -> None:
        """Take rows (n, 4) of 'ttft' or 'tpot'; the oldest make room."""
        with self._lock:
            kept = self._kept[target]
            rows = rows[-len(kept) :]
            kept[(self._came[target] + np.arange(len(rows))) % len(kept)] = rows
            self._came[target] += len(rows)

    def add_score(self, target: str, loss: float) -> None:
        """Take how far predictions made before learning were from a batch."""
        with self._lock:
            self._scores[target].append(loss)

    def scores(self) -> dict[str, list[float]]:
        """Return the losses of the last batches, the newest last."""
        with self._lock:
            return {name: list(losses) for name, losses in self._scores.items()}

    def rows(self, target: str) -> Floats:
        """Return what is kept, shape (n, 4), in no order."""
        with self._lock:
            return self._kept[target][: self._came[target]].copy()

    def counts(self) -> dict[str, int]:
        """Return how many rows of each target are kept."""
        with self._lock:
            return {name: min(self._came[name], len(kept)) for name, kept in self._kept.items()}

    def buckets(self) -> dict[str, int]:
        """Return how many rows with a TTFT lie in each of llm-d's buckets, of those that have any."""
        waiting, kv, prefix, _ = self.rows("ttft").T
        queue = np.searchsorted(_QUEUES, waiting, side="right")
        places = np.stack([queue, _equal_parts(kv, _KV_BUCKETS), _equal_parts(prefix, _PREFIX_BUCKETS)], axis=1)
        found, counts = np.unique(places, axis=0, return_counts=True)
        named = zip(found.tolist(), counts.tolist(), strict=True)
        return {f"queue_{q}_cache_{c}_prefix_{p}": count for (q, c, p), count in named}

    def clear(self, *, rows: bool, scores: bool) -> dict[str, int]:
        """Forget rows, scores or both; return how many rows of each target that were."""
        with self._lock:
            forgotten = self.counts() if rows else dict.fromkeys(TARGET_NAMES, 0)
            if rows:
                self._came = dict.fromkeys(TARGET_NAMES, 0)
            for losses in self._scores.values() if scores else ():
                losses.clear()
            return forgotten

    def by_prefix(self) -> dict[str, Any] | None:
        """Return TTFT by prefix score, as llm-d's debug page has it; None without rows."""
        rows = self.rows("ttft")
        if not len(rows):
            return None
        prefix, ttft_ms = rows[:, 2], rows[:, 3]
        quarter = _equal_parts(prefix, _PREFIX_BUCKETS)
        return {
            "overall_stats": _overall(prefix, ttft_ms),
            "distribution_by_prefix_range": {
                f"{q / 4:g}-{(q + 1) / 4:g}": _spread(prefix[quarter == q], ttft_ms[quarter == q]) for q in range(4)
            },
        }


def _equal_parts(ratios: Floats, parts: int) -> NDArray[np.int64]:
    return np.minimum((ratios * parts).astype(np.int64), parts - 1)


def _overall(prefix: Floats, ttft_ms: Floats) -> dict[str, Any]:
    varied = bool(prefix.std() > 0 and ttft_ms.std() > 0)
    return {
        "total_samples": len(prefix),
        "prefix_score_mean": float(prefix.mean()),
        "prefix_score_std": float(prefix.std()),
        "prefix_score_min": float(prefix.min()),
        "prefix_score_max": float(prefix.max()),
        "ttft_mean": float(ttft_ms.mean()),
        "ttft_std": float(ttft_ms.std()),
        "correlation": float(np.corrcoef(prefix, ttft_ms)[0, 1]) if varied else None,
    }


def _spread(prefix: Floats, ttft_ms: Floats) -> dict[str, Any]:
    """Return llm-d's numbers of one range; it writes 0 for those of a range without rows."""
    some = len(ttft_ms) > 0
    return {
        "count": len(ttft_ms),
        "mean_ttft_ms": float(ttft_ms.mean()) if some else 0,
        "median_ttft_ms": float(np.median(ttft_ms)) if some else 0,
        "std_ttft_ms": float(ttft_ms.std()) if some else 0,
        "mean_prefix_score": float(prefix.mean()) if some else 0,
        "min_ttft_ms": float(ttft_ms.min()) if some else 0,
        "max_ttft_ms": float(ttft_ms.max()) if some else 0,
    }
