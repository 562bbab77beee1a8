"""A gateway like Lodestar's before made-up engines, that asks a server where each request should go."""

from __future__ import annotations

import heapq
import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving import PODS, Server, finished_line, infer_line

__all__ = ["GatewayLoop"]

FIXED_MS, STEP_MS, OUTPUT_TOKENS = 2.0, 0.5, 8


@dataclass
class Pod:
    """An engine that computes prompts one after the other, and tokens beside them.

    Attributes:
        free_at_s: when the prompts that it has are computed.
        sent: of each request in flight: first token, end, prompt tokens.
    """

    free_at_s: float = 0.0
    sent: list[tuple[float, float, int]] = field(default_factory=list)

    def take(self, now_s: float, prompt_tokens: int, noise: float) -> tuple[float, float]:
        """Take a request; return when its first token and its last will be there."""
        own_s = (FIXED_MS + prompt_tokens / 500 + (prompt_tokens / 1000) ** 2) * noise / 1e3
        first_s = max(now_s, self.free_at_s) + own_s
        self.free_at_s = first_s
        end_s = first_s + (OUTPUT_TOKENS - 1) * STEP_MS / 1e3
        self.sent.append((first_s, end_s, prompt_tokens))
        return first_s, end_s

    def counts(self, now_s: float) -> tuple[list[tuple[float, float, int]], int]:
        """Return the requests before their first token, and how many are past it."""
        self.sent = [each for each in self.sent if each[1] > now_s]
        before = [each for each in self.sent if each[0] > now_s]
        return before, len(self.sent) - len(before)


class GatewayLoop:
    """Sends requests as they come in, and finished lines in batches, all in real time."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self.pods = {pod: Pod() for pod in PODS}
        self._begun_s = time.perf_counter()
        self._number = 0

    def run(self, server: Server, requests: int, rate: float, batch: int = 100) -> list[dict[str, Any]]:
        """Send `requests` at `rate` a second; return the answers. All have been flushed at the end."""
        waits_s = self._random.exponential(1.0 / rate, requests)
        due_s = self._now_s() + np.cumsum(waits_s)
        ends: list[tuple[float, str]] = []
        answers = []
        for at_s in due_s.tolist():
            time.sleep(max(at_s - self._now_s(), 0.0))
            answer, end_s, line = self._one(server)
            answers.append(answer)
            heapq.heappush(ends, (end_s, line))
            if len(ends) >= 2 * batch:
                self._flush(server, ends, self._now_s())
        time.sleep(max(max(end_s for end_s, _ in ends) - self._now_s(), 0.0))
        self._flush(server, ends, self._now_s())
        return answers

    def _now_s(self) -> float:
        return time.perf_counter() - self._begun_s

    def _one(self, server: Server) -> tuple[dict[str, Any], float, str]:
        prompt_tokens = int(self._random.integers(100, 4000))
        self._number += 1
        counts = {pod: each.counts(self._now_s()) for pod, each in self.pods.items()}
        maps = {
            "numInflightPrefillRequestsAllPods": {pod: len(before) for pod, (before, _) in counts.items()},
            "numInflightDecodeRequestsAllPods": {pod: decoding for pod, (_, decoding) in counts.items()},
            "vllmNumRequestsRunning": {pod: min(len(before), 1) + n for pod, (before, n) in counts.items()},
            "vllmNumRequestsWaiting": {pod: max(len(before) - 1, 0) for pod, (before, _) in counts.items()},
            "numPrefillTokensForAllPods": {
                pod: sum(tokens for *_, tokens in before) for pod, (before, _) in counts.items()
            },
        }
        status, answer = server.post("/infer", json.dumps(infer_line(self._number, prompt_tokens, **maps)))
        assert status == 200, answer
        pod = answer["selected_pod"] if answer["ood_fallback"] in (0, 3) else str(self._random.choice(PODS))
        now_s = self._now_s()
        first_s, end_s = self.pods[pod].take(now_s, prompt_tokens, float(self._random.lognormal(0, 0.1)))
        line = finished_line(self._number, pod, 0.0, prompt_tokens, OUTPUT_TOKENS, **maps)
        line = line.replace("@ttft@0@", f"@ttft@{1e3 * (first_s - now_s):.3f}@", 1)
        return answer, end_s, line.replace("@e2e@140@", f"@e2e@{1e3 * (end_s - now_s):.3f}@", 1)

    def _flush(self, server: Server, ends: list[tuple[float, str]], now_s: float) -> None:
        lines = {}
        while ends and ends[0][0] <= now_s:
            lines[str(len(lines))] = heapq.heappop(ends)[1]
        if lines:
            status, told = server.post("/flush", lines)
            assert (status, told["accepted"]) == (200, len(lines)), told
