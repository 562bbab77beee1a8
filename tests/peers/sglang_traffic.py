"""A stream of prompts through the real ``sglang-router``, written down event by event."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import numpy as np

from peers.sglang_peer import Held, SglangRouter, sglang_router

__all__ = ["DONE", "EVICTED", "LEFT", "ORDER", "SENT", "Event", "Stream", "record"]

SENT, DONE, EVICTED, LEFT, ORDER = "sent", "done", "evicted", "left", "order"
LETTERS = np.array(list(ascii_lowercase))
BUSY_SHARE = 0.5  # of an interval between evictions, so that none comes between a decision and its record
AN_INTERVAL = 100  # decisions at most, so that there are many evictions


@dataclass(frozen=True, slots=True)
class Event:
    """What happened.

    Attributes:
        kind: one of the above; who joins is in the next ORDER.
        url: of the worker.
        text: SENT: the prompt.
        number: DONE: of the request that is over.
        order: ORDER: the workers as the router lists them.
        sizes: EVICTED: characters that the router's tree holds of each worker, before and after.
    """

    kind: str
    url: str = ""
    text: str = ""
    number: int = -1
    order: tuple[str, ...] = ()
    sizes: tuple[dict[str, int], dict[str, int]] = ({}, {})


@dataclass(frozen=True, slots=True)
class Stream:
    """Random prompts to a router: some are new, some continue an earlier one, end early in it or turn away from it.

    Attributes:
        seed: of everything random.
        decisions: requests to send, about.
        workers: at first.
        spare: workers that can join; after each part of the stream, one leaves and one joins.
        most_held: requests in flight at most.
        settings: of the router's command line.
    """

    seed: int
    decisions: int
    workers: int
    most_held: int
    settings: dict[str, Any] = field(default_factory=dict)
    spare: int = 0


def record(stream: Stream) -> list[Event]:
    """Run a stream; once more from the start if the machine stood still just as the router evicted."""
    for _ in range(3):
        with sglang_router(stream.workers, stream.spare, **stream.settings) as router:
            recording = _Recording(stream, router, np.random.default_rng(stream.seed))
            try:
                recording.run()
            except _EvictedUnseenError:
                continue
            return recording.events
    raise AssertionError("this machine is too slow: thrice, an eviction came between two decisions")


class _EvictedUnseenError(Exception):
    """The router evicted at a moment that is not known exactly."""


@dataclass(slots=True)
class _Recording:
    stream: Stream
    router: SglangRouter
    rng: np.random.Generator
    events: list[Event] = field(default_factory=list)
    held: dict[int, Held] = field(default_factory=dict)
    loads: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)
    learned: int = 0

    def run(self) -> None:
        listed = self.router.urls[: self.stream.workers]
        parts = 4 if self.stream.spare else 1
        for part in range(parts):
            if part:
                listed = self.exchange(listed)
            self.learn_order(len(listed))
            self.go(self.stream.decisions * (part + 1) // parts)
            self.drain()

    def go(self, until: int) -> None:
        interval_s = self.stream.settings.get("eviction_interval_secs", 60)
        evicts = interval_s < 10
        if evicts:
            self.router.wait_for_eviction()
        start, evictions = len(self.texts), len(self.router.sizes)
        while len(self.texts) < until:
            late = time.monotonic() - self.router.evicted_at_s > BUSY_SHARE * interval_s
            if evicts and (late or len(self.texts) - start >= AN_INTERVAL):
                self.evict()
                start, evictions = len(self.texts), len(self.router.sizes)
            elif len(self.held) < self.stream.most_held and self.rng.random() < 0.55:
                self.send(self.text())
            elif self.held:
                self.finish(int(self.rng.choice(list(self.held))))
            if len(self.router.sizes) != evictions:
                raise _EvictedUnseenError

    def evict(self) -> None:
        if not self.held:
            self.send(self.texts[-1])
        self.router.wait_for_eviction()
        self.events.append(Event(EVICTED, sizes=self.router.sizes[-1]))
        # The policy hears of time by events: one has to come before the next decision.
        self.finish(next(iter(self.held)))

    def learn_order(self, workers: int) -> None:
        """Learn in which order the router lists idle workers: as many new prompts go to the first, the second ..."""
        start = len(self.events)
        for _ in range(workers):
            # Nothing before begins with this letter, so it is no match whatever the threshold.
            self.send(ascii_uppercase[self.learned] * 5)
            self.learned += 1
        self.events.insert(start, Event(ORDER, order=tuple(event.url for event in self.events[start:])))
        self.drain()

    def exchange(self, listed: list[str]) -> list[str]:
        leaving = str(self.rng.choice(listed))
        coming = str(self.rng.choice([url for url in self.router.urls if url not in listed]))
        self.router.remove(leaving)
        self.router.add(coming)
        self.events.append(Event(LEFT, leaving))
        return [url for url in listed if url != leaving] + [coming]

    def send(self, text: str) -> None:
        held = self.router.send(text)
        self.held[len(self.texts)] = held
        self.loads[held.url] += 1
        self.events.append(Event(SENT, held.url, text))
        self.texts.append(text)
        assert self.router.loads() == +self.loads

    def finish(self, number: int) -> None:
        held = self.held.pop(number)
        self.loads[held.url] -= 1
        self.router.finish(held, self.loads)
        self.events.append(Event(DONE, held.url, number=number))

    def drain(self) -> None:
        while self.held:
            self.finish(next(iter(self.held)))

    def text(self) -> str:
        fresh = "".join(self.rng.choice(LETTERS, self.rng.integers(3, 40)))
        if self.rng.random() < 0.25:
            return fresh
        old = self.texts[-1 - int(self.rng.geometric(0.02)) % len(self.texts)]
        cut = len(old) if self.rng.random() < 0.4 else int(self.rng.integers(1, len(old) + 1))
        return (old[:cut] + ("" if self.rng.random() < 0.2 else fresh))[:120]
