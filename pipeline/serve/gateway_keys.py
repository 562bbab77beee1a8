"""The keys of a line of Lodestar's gateway, and what a finished one says of how its request ended.

The format is the one that `lodestar.data.formats.lodestar_klog` ingests, by whose keys and rules this goes; a file is
read in columns there, a line in microseconds here.
"""

from __future__ import annotations

import math
import re
from typing import Final

from lodestar.data.formats import lodestar_klog as klog
from lodestar.pipeline.serve.outcome import Outcome
from lodestar.pipeline.serve.refused import Refused

__all__ = ["GPU", "LONGEST_NAME", "MAPS", "PREFIX_HASH", "name_in", "number_in", "outcome_in", "said_in", "tokens_in"]

#: What builds write where they know nothing.
NOT_KNOWN: Final = -9999
MOST_TOKENS: Final = 100_000_000
LONGEST_NAME: Final = 256

PREFIX_HASH: Final = "hashOfMatchedPrefix"
GPU: Final = "GPU"
MAPS: Final = {**klog.MAPS, **klog.NEWER_MAPS}
_KEYS: Final = (*klog.NUMBERS, "selectedpod", GPU, PREFIX_HASH, *MAPS)
_FIELD: Final = re.compile(rf"@({'|'.join(sorted(_KEYS, key=len, reverse=True))})@([^@]*)")


def said_in(text: str) -> dict[str, str]:
    """Return what a line says by key, with or without what klog writes before it.

    Keys are found by name: some builds write an empty key, which breaks reading them in pairs.

    Raises:
        Refused: it is no such line.

    >>> said_in("… **@latency_metrics@requestID@7@@predictedRewards@null@ttft@120@GPU@{}")
    {'requestID': '7', 'ttft': '120', 'GPU': '{}'}
    """
    if klog.MARK not in text:
        raise Refused("line", f"holds no {klog.MARK!r}; expected a line of Lodestar's gateway")
    said: dict[str, str] = {}
    for key, value in _FIELD.findall(text):
        said.setdefault(key, value)
    return said


def outcome_in(said: dict[str, str]) -> Outcome:
    """Return how the request of a finished line ended.

    Raises:
        Refused: a key is missing or of no use.
    """
    chosen = name_in(said, "selectedpod")
    if chosen == str(NOT_KNOWN):
        raise Refused("selectedpod", f"is {NOT_KNOWN}; expected the instance of a finished request")
    output_tokens = tokens_in(said, "numOutputTokens")
    return Outcome(
        request_id=name_in(said, "requestID"),
        chosen=chosen,
        ttft_ms=_latency(said, "ttft"),
        # One token has no time between tokens; the log writes 0.
        tpot_ms=_latency(said, "avg_tpot") if output_tokens > 1 else math.nan,
        e2e_ms=_latency(said, "e2e"),
        output_tokens=output_tokens,
    )


def number_in(said: dict[str, str], key: str) -> float:
    """Return a finite number."""
    text = said.get(key, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refused(key, f"is {text[:40]!r}; expected a number")
    return value


def tokens_in(said: dict[str, str], key: str) -> int:
    """Return a number of tokens."""
    value = number_in(said, key)
    if not (0 <= value <= MOST_TOKENS and value.is_integer()):
        raise Refused(key, f"is {said.get(key, '')[:40]!r}; expected a whole number from 0 to {MOST_TOKENS}")
    return int(value)


def _latency(said: dict[str, str], key: str) -> float:
    """Return a latency; a sentinel below 0 stands for one that is not known."""
    value = number_in(said, key) if said.get(key) else math.nan
    return value if value >= 0 else math.nan


def name_in(said: dict[str, str], key: str) -> str:
    """Return a name: of a request, or of an instance."""
    text = said.get(key, "")
    if not text or len(text) > LONGEST_NAME or not text.isprintable():
        raise Refused(key, f"is {text[:40]!r}; expected a name of at most {LONGEST_NAME} printable characters")
    return text
