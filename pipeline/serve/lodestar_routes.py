"""What Lodestar's gateway calls: ``POST /infer`` with one log line, ``POST /flush`` with finished ones."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lodestar.data.formats.lodestar_klog import MARK
from lodestar.pipeline.serve.finishing import Finishing
from lodestar.pipeline.serve.gateway_keys import outcome_in, said_in
from lodestar.pipeline.serve.gateway_line import gateway_line
from lodestar.pipeline.serve.giving_way import give_way
from lodestar.pipeline.serve.refused import Refused
from lodestar.pipeline.serve.serving import COLD_START, FALLBACK, Answer, Ask, Serving

__all__ = ["flush", "infer", "is_lodestar", "not_asked"]

#: What the gateway makes of ``ood_fallback``: it takes the pod at 0 and 3, and its own heuristic at 1 and 2.
NORMAL: Final = 0
OUTSIDE: Final = 1
UNTRAINED: Final = 2
TIE: Final = 3

NO_REWARD: Final = -99.0
ROUTE: Final = "/infer"
_AT_ONCE: Final = 2  # lines of a flush between two looks at who else waits
_JUDGED_AT_ONCE: Final = 32
_MOST_REASONS: Final = 20
_MARK: Final = MARK.encode()
_READ: Final = json.JSONDecoder().raw_decode


def is_lodestar(body: bytes) -> bool:
    """Say whether a body holds lines of Lodestar's gateway: llm-d has a /flush as well."""
    return _MARK in body


def infer(serving: Serving, body: bytes, query: Mapping[str, str]) -> bytes:
    """Answer one line with a pod.

    The line comes as plain text or, as the gateway sends it, as one JSON string. ``?rewards=list`` gives the predicted
    rewards as a list beside the order of the pods, as some builds of the service did; the gateway reads a map.

    Raises:
        Refused: the line cannot be used.
    """
    line = gateway_line(said_in(_one_line(body)))
    if not line.inflight_told:
        serving.metrics.untold.inc()
    ask = Ask(
        request_id=line.request_id,
        prompt_tokens=line.prompt_tokens,
        names=tuple(line.names),
        kinds=tuple(line.kinds),
        snapshot=line.snapshot,
        group=line.group,
        inflight_told=line.inflight_told,
    )
    answer = serving.decide(ask, ROUTE, falls_back=True)
    return _said(serving, ask, answer, as_list=query.get("rewards") == "list")


def not_asked(serving: Serving, why: str) -> bytes:
    """Answer at once that the gateway should decide by itself, without a look at the line."""
    serving.metrics.decided(ROUTE, why)
    return json.dumps(
        {
            "selected_pod": "",
            "ood_fallback": UNTRAINED,
            "fallback_reason": why,
            "predicted_rewards": {},
            "chosen_pod_predicted_reward": NO_REWARD,
            **_counts(serving, explored=False),
        }
    ).encode()


def _one_line(body: bytes) -> str:
    try:
        text = body.decode("utf-8").strip()
        if text.startswith('"'):
            text = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("line", "is no UTF-8 text, and no JSON string; expected either with one line") from None
    if "\n" in text:
        raise Refused("line", "holds a line break; expected one line. Finished requests go to /flush")
    return text


def _said(serving: Serving, ask: Ask, answer: Answer, *, as_list: bool) -> bytes:
    rewards = [NO_REWARD if math.isnan(ms) else -ms / 1e3 for ms in answer.predicted_ms[:, 0].tolist()]
    named: dict[str, Any] = {"predicted_rewards": dict(zip(ask.names, rewards, strict=True))}
    if as_list:
        named = {"predicted_rewards": rewards, "predicted_rewards_pod_order": ask.names}
    code, why = _code(serving, answer)
    return json.dumps(
        {
            "request_id": ask.request_id,
            "selected_pod": ask.names[answer.best],
            "ood_fallback": code,
            **({"fallback_reason": why} if why else {}),
            **named,
            "chosen_pod_predicted_reward": rewards[answer.best],
            **_counts(serving, explored=answer.explored),
            **({"probability": float(answer.probability[answer.best])} if answer.followed else {}),
            "artifact_version": answer.version,
        },
        separators=(",", ":"),
    ).encode()


def _code(serving: Serving, answer: Answer) -> tuple[int, str]:
    if serving.options.shadow:
        return UNTRAINED, "shadow"
    if answer.source == COLD_START:
        return UNTRAINED, COLD_START
    if answer.source == FALLBACK:
        return OUTSIDE, "no pod that the model knows latencies for, within its training range or at all"
    return (TIE if answer.tied else NORMAL), ""


def _counts(serving: Serving, *, explored: bool) -> dict[str, int]:
    return {
        "exploration": int(explored),
        "exploration_enabled": int(serving.explores),
        "num_trains": serving.trains,
        "num_flush": serving.flushes,
    }


async def flush(serving: Serving, body: bytes) -> bytes:
    """Take finished lines: text with one a line, or the JSON map of request id to line that the gateway sends.

    Decisions go on between the lines of a long batch.

    Raises:
        Refused: the body is neither.
    """
    batch, reasons, now_s = Finishing(serving), list[dict[str, Any]](), time.time()
    lines = 0
    try:
        for lines, text in enumerate(_lines(body), start=1):
            why = _take(batch, text, now_s)
            if why is not None and len(reasons) < _MOST_REASONS:
                reasons.append({"line": lines, "reason": why})
            if lines % _JUDGED_AT_ONCE == 0:
                batch.done()
            if lines % _AT_ONCE == 0:
                await give_way()
    finally:  # a map that breaks off has given the lines before
        batch.done()
    serving.flushes += 1
    return json.dumps(
        {
            "accepted": batch.learned,
            "refused": batch.refused,
            "reasons": reasons,
            "learning": serving.options.learn,
            "num_trains": serving.trains,
            "num_flush": serving.flushes,
        }
    ).encode()


def _take(batch: Finishing, text: str, now_s: float) -> str | None:
    """Take one line; return why not, or None."""
    try:
        said = said_in(text)
        outcome = outcome_in(said)
        # Of a decision that is remembered, the line is needed for its outcome alone.
        known = outcome.request_id in batch.serving.waiting
        line = None if known else gateway_line(said, outcome.chosen)
    except Refused as error:
        batch.refuse("not readable")
        return str(error)
    return batch.take(outcome, now_s, line)


def _lines(body: bytes) -> Iterator[str]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("body", f"is no UTF-8 text ({error.reason} at byte {error.start})") from None
    start = text[:64].lstrip()[:1]
    if start == "{":
        return _values(text)
    if start == '"':
        return iter(_one_line_or_more(text).splitlines())
    return (line for line in text.split("\n") if line.strip())


def _one_line_or_more(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        raise Refused("body", "begins like a JSON string and is none") from None
    return str(found)


_SPACE: Final = " \t\r\n"


def _values(text: str) -> Iterator[str]:
    """Give the texts of a JSON map one by one: the map of a busy gateway takes a tenth of a second to read as a whole.

    >>> list(_values('{"1": "a", "2": "b"}'))
    ['a', 'b']
    """
    at = _skip(text, text.index("{") + 1, "")
    if text[at : at + 1] == "}":
        return
    while True:
        _, at = _string(text, at)
        value, at = _string(text, _skip(text, at, ":"))
        yield value
        at = _skip(text, at, "")
        if text[at : at + 1] == "}":
            return
        at = _skip(text, at, ",")


def _skip(text: str, at: int, expected: str) -> int:
    """Pass white space, and one expected character with the white space behind it."""
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    if not expected:
        return at
    if text[at : at + 1] != expected:
        raise Refused("body", f"has {text[at : at + 10]!r} at character {at}; expected {expected!r} of a JSON map")
    return _skip(text, at + 1, "")


def _string(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        raise Refused("body", f"has {text[at : at + 10]!r} at character {at}; expected a JSON map of texts")
    try:
        value, end = _READ(text, at)
    except ValueError as error:
        raise Refused("body", f"is no JSON map of texts: {error}") from None
    return str(value), end
