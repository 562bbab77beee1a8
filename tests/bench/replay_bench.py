"""What the replay benchmarks share: cases, pairs of runs beside the peer, and tables."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from clock import Cost, cost_of, middle, process
from peer_replay import Peer, PeerRun
from replay_workloads import PRESET, generated, mooncake, sharing09

from lodestar.data.errors import ConfigError
from lodestar.data.workloads.write import write_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy

__all__ = ["RATES_PER_S", "Bench", "Beside", "Case", "Table", "beside_peer", "loop_costs", "own_process", "verdict"]

RATES_PER_S = (16, 40, 160)
PAIRS = {"random": "round_robin", "least-request": "round_robin", "aibrix-prefix-cache": "kv_router"}
MOST_SPEED, SPEED_STEPS, SPEED_REQUESTS = 20.0, 8, 2500
BUSY_S = 0.1  # one run in the loop repeats until it takes about so long


@dataclass(frozen=True, slots=True)
class Table:
    """One section of the result."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Lay it out as Markdown that reads well as it stands."""
        cells = [self.head, *self.rows]
        widths = [max(len(row[k]) for row in cells) for k in range(len(self.head))]
        lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        rule = "|".join("-" * (width + 2) for width in widths)
        table = [f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])] if self.rows else []
        notes = [part for note in self.notes for part in ("", note)]
        return "\n".join([f"## {self.title}", "", *table, *(notes if table else notes[1:])]) + "\n"


@dataclass(frozen=True)
class Case:
    """A workload before its instances, and the same requests as the file that both simulators read."""

    title: str
    cluster: Cluster
    folder: Path
    trace: Path | None = None

    @cached_property
    def file(self) -> Path | str:
        """Return the trace that the requests come from, or write one; where they can be none, say why."""
        if self.trace:
            return self.trace
        path = self.folder / f"{''.join(letter for letter in self.title if letter.isalnum())}.jsonl"
        try:
            write_workload(path, self.cluster.workload, "mooncake")
        except ConfigError as error:
            return f"{self.title}: no trace for the peer: {error}"
        return path

    @property
    def engine(self) -> EngineModel:
        """Return the engine of all its instances."""
        return self.cluster.engines[0]


@dataclass(frozen=True)
class Bench:
    """What one call of the benchmark has: a folder for its files, how often to run, and where the peer is."""

    folder: Path
    runs: int
    peer_home: Path | None
    absent: list[str] = field(default_factory=list)

    @cached_property
    def peer(self) -> Peer | None:
        """Return the peer, or None where there is none; the reason is said once."""
        found = Peer.at(self.peer_home) if self.peer_home else "the peer was not asked for"
        if isinstance(found, Peer):
            return found
        self._say(f"{found}: Lodestar is shown alone")
        return None

    @cached_property
    def sharing09(self) -> list[Case]:
        """Return the real log's case, or nothing where the log is absent."""
        cluster = sharing09()
        if cluster is None:
            self._say("sharing09: the real log is absent (LODESTAR_TRACES names its folder): not measured")
            return []
        return [Case(f"sharing09, {len(cluster.engines)} instances, calibrated", cluster, self.folder)]

    @cached_property
    def mooncake(self) -> list[Case]:
        """Return the Mooncake conversation trace before 8 instances, or nothing where it is absent."""
        found = mooncake(self.folder)
        if found is None:
            self._say("Mooncake: the real trace is absent (LODESTAR_TRACES names its folder): not measured")
            return []
        path, workload = found
        cluster = Cluster.of([EngineModel.preset(PRESET)] * 8, workload)
        return [Case(f"Mooncake conversation, {len(workload):,} requests, 8 instances", cluster, self.folder, path)]

    @cached_property
    def poisson(self) -> list[Case]:
        """Return 10,000 generated requests at each rate before 8 instances."""
        return [
            Case(f"10,000 Poisson at {rate}/s, 8 instances", generated(10_000, rate, 8), self.folder)
            for rate in RATES_PER_S
        ]

    def _say(self, line: str) -> None:
        self.absent.append(line)
        print(line, file=sys.stderr, flush=True)


def loop_costs(case: Case, policy: str, runs: int) -> list[Cost]:
    """Replay in this process, compiled; each run is the mean of so many replays that it takes a while."""
    decides = make_policy(policy)
    once = cost_of(lambda: case.cluster.replay(decides))
    once = cost_of(lambda: case.cluster.replay(decides))
    repeats = max(1, round(BUSY_S / once.wall_s))
    return [cost_of(lambda: case.cluster.replay(decides), repeats) for _ in range(runs)]


def own_process(case: Case, policy: str, home: Path, source: str) -> tuple[Cost, dict[str, float]]:
    """Replay in a process of its own: import, load, simulate, report."""
    settings = {
        "source": source,
        "home": str(home),
        "engine": case.engine.to_dict(),
        "instances": len(case.cluster.engines),
        "policy": policy,
    }
    cost, printed = process([sys.executable, str(Path(__file__).with_name("replay_process.py")), json.dumps(settings)])
    return cost, json.loads(printed.splitlines()[-1])


@dataclass(frozen=True, slots=True)
class Beside:
    """Runs of both, in turn; the peer's under one of its routers."""

    router: str
    own_loop: list[Cost]
    own_process: list[Cost]
    peer: list[PeerRun]
    own_latency: str

    def loop_ratio(self) -> Cost:
        """Return how many times as long the peer's loop takes, by both clocks: the medians over pairs."""
        return _ratios(self.own_loop, [run.loop for run in self.peer])

    def process_ratio(self) -> Cost:
        """Return how many times as long the peer's whole process takes, by both clocks: the medians over pairs."""
        return _ratios(self.own_process, [run.process for run in self.peer])

    def peer_process(self) -> Cost:
        """Return the peer's medians."""
        return middle(run.process for run in self.peer)

    def peer_loop(self) -> Cost:
        """Return the medians of what the peer says of its loop."""
        return middle(run.loop for run in self.peer)

    def peer_latency(self) -> str:
        """Return what the peer simulated: mean TTFT, TPOT and end to end."""
        return _latency(self.peer[0].ttft_ms, self.peer[0].tpot_ms, self.peer[0].e2e_ms)


def _ratios(own: list[Cost], theirs: list[Cost]) -> Cost:
    pairs = list(zip(own, theirs, strict=True))
    return middle(Cost(them.wall_s / us.wall_s, them.cpu_s / us.cpu_s) for us, them in pairs)


def _latency(ttft_ms: float, tpot_ms: float, e2e_ms: float) -> str:
    return f"{ttft_ms:,.0f} / {tpot_ms:.1f} / {e2e_ms:,.0f}"


def beside_peer(peer: Peer, case: Case, policy: str, runs: int, home: Path, source: str | None = None) -> Beside:
    """Run Lodestar in loop, Lodestar as a process and the peer in turn, under about the same load."""
    file = case.file
    assert isinstance(file, Path)
    engine = {**_peer_engine(case), "speedup_ratio": _speed(peer, case, policy)}
    arguments = (file, PAIRS[policy], len(case.cluster.engines), case.cluster.workload.block_tokens, engine)
    loops, processes, theirs = [], [], []
    for _ in range(runs):
        loops += loop_costs(case, policy, 1)
        processes.append(own_process(case, policy, home, source or str(file))[0])
        theirs.append(peer.replay(*arguments))
    outcome = case.cluster.replay(make_policy(policy))
    latency = (float(np.nanmean(values)) for values in (outcome.ttft_ms, outcome.tpot_ms, outcome.e2e_ms))
    return Beside(PAIRS[policy], loops, processes, theirs, _latency(*latency))


def _speed(peer: Peer, case: Case, policy: str) -> float:
    """Find how fast the peer's engine must be for as many requests in flight as ours has, on the first requests.

    The peer has a latency model of its own, and the load decides how many steps there are to simulate. As many in
    flight under the same arrivals is the same mean time end to end, which falls as the engine gets faster.
    """
    head = replace(case, title=f"head of {case.title}", cluster=_head(case.cluster), trace=None)
    assert isinstance(head.file, Path)
    wanted_ms = float(np.nanmean(head.cluster.replay(make_policy(policy)).e2e_ms))
    low, high = 1 / MOST_SPEED, MOST_SPEED
    for _ in range(SPEED_STEPS):
        speed = math.sqrt(low * high)
        engine = {**_peer_engine(case), "speedup_ratio": speed}
        workers, block_tokens = len(case.cluster.engines), case.cluster.workload.block_tokens
        slower = peer.replay(head.file, PAIRS[policy], workers, block_tokens, engine).e2e_ms > wanted_ms
        low, high = (speed, high) if slower else (low, speed)
    return math.sqrt(low * high)


def _head(cluster: Cluster) -> Cluster:
    return Cluster.of(cluster.engines, cluster.workload.head(SPEED_REQUESTS))


def _peer_engine(case: Case) -> dict[str, object]:
    """Give the peer's engine what ours can hold, in its own words."""
    block_tokens = case.cluster.workload.block_tokens
    return {
        "block_size": block_tokens,
        "num_gpu_blocks": case.engine.kv_capacity_tokens // block_tokens,
        "max_num_seqs": case.engine.max_sequences,
        "max_num_batched_tokens": case.engine.max_batched_tokens,
    }


def verdict(target: str, met: bool) -> str:
    """Say whether a target is met.

    >>> verdict(">= 30 x", False)
    '>= 30 x: missed'
    """
    return f"{target}: {'met' if met else 'missed'}"
