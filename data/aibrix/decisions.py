"""What the gateway of AIBrix logs of a decision: lines that name no request, tied to one by pod and time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.aibrix.klog import KlogLine, names, pairs
from lodestar.data.aibrix.pairing import Span, forced
from lodestar.data.aibrix.text_blocks import prompt_text, text_id
from lodestar.data.parsing.json_lines import Refused, load_json

__all__ = ["Decision", "Decisions"]

SELECTED: Final = re.compile(r"\(Routing logic overhead\) selectTargetPod latency: (\d{1,9}\.\d+), target pod: (\S+)")
ROUTE: Final = '"prefix cache route"'
THRESHOLD: Final = re.compile(r"prefix cache match threshold percent: (\d{1,3})$")
LOCKED: Final = "Lock acquire latency"
READY: Final = re.compile(r"current actual ready pods: (\d{1,9})$")
MATCH: Final = re.compile(r"latency, Total tokens: (\d{1,15}), Matched tokens: (\d{1,15}), Matching ratio: (\d+\.\d+)")
LONGEST: Final = re.compile(r"Selected pod (\S+) from longest matching node")
COST: Final = re.compile(r"Pod: (\S+), Cost: ")
TARGET: Final = re.compile(r'"target_pod_name" (\S+)="target_pod_ip" ([^\s=]+)=')
# selectTargetPod logs its duration to 0.1 ms: the start of the routing that follows from it is that exact.
ROUNDED_US: Final = 100


@dataclass(slots=True)
class Decision:
    """What the router knew when it chose.

    Attributes:
        candidates: dicts of ``CANDIDATE_COLUMNS``.
        text: names the messages that were routed, where they are logged.
        pod: the address of the pod that was chosen.
        started_us: when the routing began.
        ended_us: when it was over.
    """

    candidates: list[dict[str, Any]]
    text: str | None = None
    pod: str | None = None
    started_us: int = 0
    ended_us: int = 0

    def span(self) -> Span:
        """Return it as one side of a pair."""
        return Span(self.pod, self.started_us, None, self.ended_us)


@dataclass(slots=True)
class Decisions:
    """The decisions whose request is not known yet.

    `prefix-cache` logs the ready pods and which of them hold the matched tokens; `prefix-cache-and-load` the number of
    ready pods, the share of the prompt that matched, and sometimes every pod with its cost.

    Attributes:
        pod_names: address → name, where a line gives both.
        pods: the names of all pods, by the last line-up of costs.
        routed: the decision that is being logged by prefix-cache.
        locked: what prefix-cache-and-load has logged of the decision that holds its lock.
        threshold_percent: the share of matched tokens above which prefix-cache keeps to the pods that have them.
        drawn: a decision has its probabilities.
        closed: those that were logged as a whole.
    """

    pod_names: dict[str, str] = field(default_factory=dict)
    pods: list[str] = field(default_factory=list)
    routed: Decision | None = None
    locked: dict[str, Any] | None = None
    threshold_percent: int | None = None
    drawn: bool = False
    closed: list[Decision] = field(default_factory=list)

    def take(self, line: KlogLine) -> bool:
        """Read a line; False where it tells nothing of a decision."""
        selected = SELECTED.match(line.message)
        if selected:
            took_us = round(float(selected[1]) * 1e6)
            self._select(line.at_us - took_us, line.at_us, selected[2].rsplit(":", 1)[0])
            return True
        if line.message.startswith(ROUTE):
            self._route(pairs(line.message[len(ROUTE) :]))
            return True
        threshold = THRESHOLD.search(line.message)
        if threshold:
            self.threshold_percent = int(threshold[1])
        return self._under_lock(line.message)

    def of(self, requests: Sequence[Span]) -> dict[int, Decision]:
        """Take the decisions that can be those of one request only, by pod and by when it was routed; by its place.

        Between a request and its routing the gateway may stand still for tenths of a second, so that the nearest in
        time is often another's.
        """
        found = forced(requests, [each.span() for each in self.closed], (-ROUNDED_US, 0))
        return {row: self.closed[place] for row, place in found.items()}

    def _select(self, started_us: int, ended_us: int, pod: str) -> None:
        """Close the decision that was being logged; where another one's lines are between its own it is nobody's."""
        if self.routed is not None and self.routed.pod == pod:
            self.routed.started_us, self.routed.ended_us = started_us, ended_us
            self.closed.append(self.routed)
        self.routed = None

    def _route(self, said: dict[str, str]) -> None:
        ready, matched = names(said.get("ready_pods", "")), names(said.get("matched_pods", ""))
        hit, rest = _count(said.get("matched_tokens")), _count(said.get("unmatched_tokens"))
        if not ready or matched is None or hit is None or rest is None:
            return
        if self.threshold_percent is not None:
            self.drawn = True
        ratio = hit / (hit + rest) if hit + rest else None
        drawn = self._drawn(ready, matched, hit, hit + rest)
        # Where no pod holds the match none holds any; where some do, the others may hold less of it: not logged.
        others = 0.0 if not matched else None
        candidates = [
            {s.INSTANCE: pod, s.HIT_RATIO: ratio if pod in matched else others, s.PROBABILITY: drawn.get(pod)}
            for pod in sorted(ready)
        ]
        self.routed = Decision(candidates, _text_id(said.get("message")), said.get("target_pod"))

    def _drawn(self, ready: list[str], matched: list[str], hit: int, tokens: int) -> dict[str, float]:
        """Return the chance of each pod, where the share of matched tokens that decides is logged."""
        if self.threshold_percent is None or not tokens:
            return {}
        # In whole percent, as the gateway counts.
        among = matched if 100 * hit // tokens > self.threshold_percent else ready
        return {pod: (pod in among) / len(among) for pod in ready} if among else {}

    def _under_lock(self, message: str) -> bool:
        """Follow prefix-cache-and-load, which logs one decision at a time since it holds a lock meanwhile."""
        if message.startswith(LOCKED):
            self.locked = {"costs": []}
            return True
        state = self.locked
        if state is None:
            return False
        for key, pattern in (("ready", READY), ("match", MATCH), ("longest", LONGEST)):
            if found := pattern.match(message):
                state[key] = found
                return True
        if found := COST.match(message):
            state["costs"].append(found[1])
            return True
        if found := TARGET.match(message):
            self._target(state, found[1], found[2])
            return True
        return False

    def _target(self, state: dict[str, Any], name: str, address: str) -> None:
        self.locked = None
        self.pod_names[address] = name
        self.pods = sorted(state["costs"]) or self.pods
        ready, match, longest = state.get("ready"), state.get("match"), state.get("longest")
        if not ready or not match or int(ready[1]) != len(self.pods) or name not in self.pods:
            return
        total, matched = int(match[1]), int(match[2])
        others = 0.0 if matched == 0 else None
        on_longest = {longest[1]: matched / total} if longest and total else {}
        candidates = [{s.INSTANCE: pod, s.HIT_RATIO: on_longest.get(pod, others)} for pod in self.pods]
        self.routed = Decision(candidates, None, address)


def _count(tokens: str | None) -> int | None:
    """Count a list of tokens."""
    if tokens is None or not (tokens.startswith("[") and tokens.endswith("]")):
        return None
    inner = tokens[1:-1].strip()
    return inner.count(",") + 1 if inner else 0


def _text_id(message: str | None) -> str | None:
    try:
        text = prompt_text(load_json(message or ""))
    except Refused:
        return None
    return None if text is None else text_id(text)
