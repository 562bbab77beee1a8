"""What one line of Lodestar's gateway says of the candidates: of a request to be routed, or of a finished one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.aibrix.klog import mapping
from lodestar.data.formats import lodestar_klog as klog
from lodestar.pipeline.serve.gateway_keys import GPU, LONGEST_NAME, MAPS, PREFIX_HASH, name_in, number_in, tokens_in
from lodestar.pipeline.serve.refused import Refused

__all__ = ["GatewayLine", "gateway_line"]

Floats = NDArray[np.float64]

NOT_KNOWN: Final = -9999.0
MOST_INSTANCES: Final = 4096

_HITS: Final = next(key for key, field in klog.MAPS.items() if field == s.HIT_RATIO)
_NEEDED: Final = ("requestID", "request_start_time", "numInputTokens", *klog.MAPS)

_PREFILL: Final = "numInflightPrefillRequestsAllPods"
_DECODE: Final = "numInflightDecodeRequestsAllPods"
_LAST_ACCESS: Final = "allPodsKvCacheLastAccess"

_COLUMN: Final = {name: i for i, name in enumerate(s.SNAPSHOT_FIELDS)}
_HIT, _INFLIGHT, _KV = _COLUMN[s.HIT_RATIO], _COLUMN[s.INFLIGHT_REQUESTS], _COLUMN[s.KV_USAGE_RATIO]
_RUNNING, _WAITING = _COLUMN[s.RUNNING_REQUESTS], _COLUMN[s.WAITING_REQUESTS]
_PREFILL_REQUESTS, _DECODE_REQUESTS = _COLUMN[s.INFLIGHT_PREFILL_REQUESTS], _COLUMN[s.INFLIGHT_DECODE_REQUESTS]
_PREFILL_TOKENS, _DECODE_TOKENS = _COLUMN[s.PREFILL_TOKENS], _COLUMN[s.DECODE_TOKENS]
_AGE: Final = _COLUMN[s.LAST_ACCESS_AGE_S]
#: The maps in the order of the snapshot's fields; the last one holds times, of which ages are made.
_ORDER: Final = [next(key for key, field in MAPS.items() if field == name) for name in s.SNAPSHOT_FIELDS[:-1]]
_ORDER.append(_LAST_ACCESS)
_MOST: Final = {_HIT: (100.0, 100.0, "0–100 %"), _KV: (1.0, 1.0 + 1e-6, "0–1")}
_HASH_BITS: Final = (1 << 62) - 1
#: What `json.loads` calls, without what it does around it: there are ten maps in a line.
_READ: Final = json.JSONDecoder().raw_decode


@dataclass(slots=True)
class GatewayLine:
    """What a line says.

    Attributes:
        request_id: as the gateway names it.
        prompt_tokens: 0 where they are not known.
        names: the instances that the request could go to.
        kinds: the hardware of each, as the gateway labels it; '' where it does not.
        snapshot: shape (len(names), len(SNAPSHOT_FIELDS)); NaN where a field is not known.
        inflight_told: whether the line tells how many requests are in flight; builds of 2026 leave it out on
            ``/infer``, and what the engines run and queue stands for it then.
        group: names the prefix that the request shares; -1 where it shares none.
    """

    request_id: str
    prompt_tokens: int
    names: list[str]
    kinds: list[str]
    snapshot: Floats
    inflight_told: bool
    group: int


def gateway_line(said: dict[str, str], chosen: str | None = None) -> GatewayLine:
    """Return the candidates of a line and what it says of each.

    Args:
        said: by key, from `said_in`.
        chosen: the instance of a finished request. The counters of its line stand as they were after the decision, and
            what the request itself added to its instance is taken out. None: the request is yet to be routed.

    Raises:
        Refused: the line is not whole; the error names the key.
    """
    for key in _NEEDED:
        if not said.get(key):
            raise Refused(key, "is missing or empty")
    start_us = number_in(said, "request_start_time")
    prompt_tokens = tokens_in(said, "numInputTokens")
    maps = [_map(said, key) for key in _ORDER]
    names, kinds = _instances(said, maps)
    if chosen is not None and chosen not in names:
        names.append(chosen)
        kinds.append(_hardware(said.get(GPU)).get(chosen, ""))
    snapshot = _snapshot(maps, names)
    inflight_told = _finish(snapshot, said, maps, start_us)
    if chosen is not None:
        _before_decision(snapshot, names.index(chosen), prompt_tokens, said)
    request_id = name_in(said, "requestID")
    return GatewayLine(request_id, prompt_tokens, names, kinds, snapshot, inflight_told, _group(said))


def _map(said: dict[str, str], key: str) -> dict[str, Any]:
    """Read a map of instances, as JSON or as Go prints it; an absent one is empty."""
    text = said.get(key)
    if text is None or text in ("{}", "null", ""):
        return {}
    found = _json(text) if text.startswith("{") else mapping(text)
    if not isinstance(found, dict):
        raise Refused(key, f"is {text[:40]!r}; expected a map of numbers, null or {{}}")
    return found


def _instances(said: dict[str, str], maps: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Name the candidates: those that the prefix index was asked about, else those whose hardware is told."""
    hardware = _hardware(said.get(GPU))
    names = list(maps[_HIT]) or list(hardware)
    if not names:
        raise Refused(_HITS, "names no instance; expected one value for each that the request could go to")
    if len(names) > MOST_INSTANCES:
        raise Refused(_HITS, f"names {len(names)} instances; expected at most {MOST_INSTANCES}")
    if "".join(names).isprintable() and max(map(len, names)) <= LONGEST_NAME and "" not in names:
        return names, [hardware.get(name, "") for name in names]
    raise Refused(_HITS, f"names an instance by something else than 1 to {LONGEST_NAME} printable characters")


def _json(text: str) -> Any:
    """Read a JSON value that fills a text; None where it is none."""
    try:
        found, end = _READ(text)
    except (ValueError, RecursionError):
        return None
    return found if end == len(text) or not text[end:].strip() else None


@lru_cache(maxsize=64)
def _hardware(text: str | None) -> dict[str, str]:
    """Return instance → hardware; an old build writes one word there, or nothing, which tells nothing."""
    if not text or not text.startswith("{"):
        return {}
    found = _json(text)
    if not isinstance(found, dict):
        raise Refused(GPU, f"is {text[:40]!r}; expected a map of texts")
    return {name: kind for name, kind in found.items() if isinstance(kind, str) and len(kind) <= LONGEST_NAME}


def _snapshot(maps: list[dict[str, Any]], names: list[str]) -> Floats:
    """Lay the maps side by side; an instance that a map leaves out has 0 there, and a sentinel is not known."""
    try:
        columns = np.array([[told.get(name, 0) for name in names] for told in maps], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _no_numbers(maps) from None
    if np.isinf(columns).any():
        raise _no_numbers(maps)
    columns[:_AGE][columns[:_AGE] < 0.0] = np.nan
    columns[_AGE][columns[_AGE] == NOT_KNOWN] = np.nan
    for at, (unit, most, expected) in _MOST.items():
        if (columns[at] > most).any():
            raise Refused(_ORDER[at], f"holds {np.nanmax(columns[at]):g}; expected {expected}")
        columns[at] /= unit
    return np.ascontiguousarray(columns.T)


def _no_numbers(maps: list[dict[str, Any]]) -> Refused:
    """Name the key and the instance whose value is no number."""
    for key, told in zip(_ORDER, maps, strict=True):
        for name, value in told.items():
            try:
                if not math.isinf(float(value)):
                    continue
            except (TypeError, ValueError, OverflowError):
                pass
            return Refused(key, f"holds {str(value)[:40]!r} for {name[:40]!r}; expected a number")
    return Refused("line", "holds a value that is no number")


def _finish(snapshot: Floats, said: dict[str, str], maps: list[dict[str, Any]], start_us: float) -> bool:
    """Make ages of times and counts of parts; say whether the requests in flight are told."""
    snapshot[:, _AGE] = _ages(snapshot, start_us) if said.get(_LAST_ACCESS) else np.nan
    if said.get(_PREFILL) is None:  # a build of 2025
        snapshot[:, _PREFILL_REQUESTS] = snapshot[:, _DECODE_REQUESTS] = np.nan
        return True
    if not maps[_PREFILL_REQUESTS] and not maps[_DECODE_REQUESTS] and _at_work(snapshot):
        snapshot[:, _PREFILL_REQUESTS] = snapshot[:, _DECODE_REQUESTS] = np.nan
        snapshot[:, _INFLIGHT] = snapshot[:, _RUNNING] + snapshot[:, _WAITING]
        return False
    snapshot[:, _INFLIGHT] = snapshot[:, _PREFILL_REQUESTS] + snapshot[:, _DECODE_REQUESTS]
    return True


def _at_work(snapshot: Floats) -> bool:
    """Say whether anything is in flight, by what else the gateway and the engines count."""
    busy = snapshot[:, [_RUNNING, _WAITING, _PREFILL_TOKENS, _DECODE_TOKENS]]
    return bool((busy > 0).any())


def _ages(snapshot: Floats, start_us: float) -> Floats:
    last_us = snapshot[:, _AGE]
    age_s = (start_us - last_us) / 1e6
    never = (last_us == 0.0) & (snapshot[:, _HIT] == 0.0)
    age_s[never | (age_s < 0.0)] = np.nan
    return np.asarray(age_s)


def _before_decision(snapshot: Floats, chosen: int, prompt_tokens: int, said: dict[str, str]) -> None:
    """Newer builds count the request itself on its instance: take it out, as `lodestar_klog` does."""
    if said.get(_PREFILL) is None:
        return
    row = snapshot[chosen]
    row[_PREFILL_REQUESTS] -= 1.0
    # The gateway's count of the prompt differs from the engine's by the chat template: the difference alone is not
    # exact where nothing else is before its first token.
    row[_PREFILL_TOKENS] = 0.0 if row[_PREFILL_REQUESTS] == 0.0 else row[_PREFILL_TOKENS] - prompt_tokens
    row[_INFLIGHT] = row[_PREFILL_REQUESTS] + row[_DECODE_REQUESTS]
    for at in (_PREFILL_REQUESTS, _PREFILL_TOKENS, _INFLIGHT):
        if row[at] < 0.0:
            row[at] = np.nan


def _group(said: dict[str, str]) -> int:
    text = said.get(PREFIX_HASH, "")
    if not text.isdecimal() or len(text) > 20:
        return -1
    value = int(text)
    return value & _HASH_BITS if value else -1
