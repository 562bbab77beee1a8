"""An oracle: one engine in plain Python, every step taken, every block an object, written from the definition."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel

Key = tuple[object, int]


@dataclass(eq=False)
class Block:
    key: Key | None = None
    users: int = 0


@dataclass(eq=False)
class Job:
    index: int
    arrived: float
    entered: float
    prompt: int
    output: int
    keys: list[Key]
    priority: int
    leaves: float
    generated: int = 0
    computed: int = 0
    blocks: list[Block] = field(default_factory=list)
    first: float = float("nan")
    finished: float = float("nan")
    cached: int = -1
    preemptions: int = 0
    status: int = 0

    def tokens(self) -> int:
        return self.prompt + self.generated


class Cache:
    """Blocks with hashes; a free block that holds something is found until it is the least recently used one."""

    def __init__(self, engine: EngineModel) -> None:
        self.size, self.caching = engine.block_tokens, engine.prefix_caching
        self.empty = [Block() for _ in range(engine.kv_capacity_tokens // engine.block_tokens)]
        self.idle: list[Block] = []  # least recently used first
        self.found: dict[Key, Block] = {}

    def hit(self, job: Job) -> list[Block]:
        hit = []
        for key in job.keys:
            if key not in self.found:
                break
            hit.append(self.found[key])
        return hit

    def take(self, wanted: list[Block], new: int) -> list[Block] | None:
        idle = [block for block in wanted if block.users == 0]
        if len(self.empty) + len(self.idle) - len(idle) < new:
            return None
        for block in wanted:
            block.users += 1
        for block in idle:
            self.idle.remove(block)
        return [self.new() for _ in range(new)]

    def new(self) -> Block:
        if self.empty:
            block = self.empty.pop()
        else:
            block = self.idle.pop(0)
            assert block.key is not None
            del self.found[block.key]
        block.key, block.users = None, 1
        return block

    def give_back(self, job: Job) -> None:
        full = job.computed // self.size
        for k in reversed(range(len(job.blocks))):
            block = job.blocks[k]
            block.users -= 1
            if block.users:
                continue
            if self.caching and k < full:
                self.idle.append(block)
            else:
                if block.key is not None:
                    self.found.pop(block.key, None)
                block.key = None
                self.empty.append(block)
        job.blocks = []

    def name(self, job: Job) -> None:
        if not self.caching:
            return
        for block, key in zip(job.blocks, job.keys, strict=False):
            if block.key is None and key not in self.found:
                block.key = key
                self.found[key] = block


def keys_of(workload: Workload, i: int, size: int, blocks: int) -> list[Key]:
    whole = min(
        int(workload.block_offsets[i + 1] - workload.block_offsets[i]),
        int(workload.prompt_tokens[i]) // workload.block_tokens,
    )
    ids = workload.block_ids[workload.block_offsets[i] :][:whole]
    of = [((k + 1) * size - 1) // workload.block_tokens for k in range(blocks)]
    return [(int(ids[b]), k) if b < whole else (f"own {i}", k) for k, b in enumerate(of)]


def serve(engine: EngineModel, workload: Workload) -> list[Job]:
    """Serve a workload on one engine; times are in seconds, as the router sees them."""
    size = engine.block_tokens
    patience = np.full(len(workload), np.inf) if workload.cancel_after_s is None else workload.cancel_after_s
    priority = np.zeros(len(workload), int) if workload.priority is None else workload.priority
    jobs = [
        Job(
            i,
            float(at),
            float(at) + engine.request_overhead_ms / 1e3,
            int(p),
            int(o),
            keys_of(workload, i, size, (int(p) + int(o)) // size + 1),
            int(priority[i]),
            float(at + patience[i]),
        )
        for i, (at, p, o) in enumerate(
            zip(workload.arrived_at_s, workload.prompt_tokens, workload.output_tokens, strict=True)
        )
    ]
    coming = sorted(jobs, key=lambda job: (job.entered, job.index))
    waiting: list[Job] = []
    running: list[Job] = []  # in the order of admission
    cache, now, back = Cache(engine), 0.0, engine.response_overhead_ms / 1e3

    def enqueue(job: Job, at_head: bool) -> None:
        if engine.scheduling == "priority":
            waiting.append(job)
            waiting.sort(key=lambda job: (job.priority, job.index))
        elif at_head:
            waiting.insert(0, job)
        else:
            waiting.append(job)

    def preempt() -> None:
        victim = running[-1]
        if engine.scheduling == "priority":
            victim = max(running, key=lambda job: (job.priority, running.index(job)))
        running.remove(victim)
        cache.give_back(victim)
        victim.computed, victim.preemptions = 0, victim.preemptions + 1
        enqueue(victim, True)

    while coming or waiting or running:
        while coming and coming[0].entered <= now:
            enqueue(coming.pop(0), False)
        for job in [job for job in waiting + running + coming if job.leaves <= now]:
            job.status = 1
            for line in (waiting, running, coming):
                if job in line:
                    line.remove(job)
            if job.blocks:
                cache.give_back(job)
        if not waiting and not running:
            if not coming:
                break
            now = coming[0].entered
            continue

        def need() -> int:
            grown = [job for job in running if job.computed >= job.prompt]
            return sum(-(-(job.computed + 1) // size) > len(job.blocks) for job in grown)

        preempted = False

        def make_room() -> None:
            nonlocal preempted
            while need() > len(cache.empty) + len(cache.idle):
                preempt()
                preempted = True

        def take_next(decoding: list[Job]) -> None:
            for job in decoding:
                if -(-(job.computed + 1) // size) > len(job.blocks):
                    job.blocks.append(cache.new())

        if engine.chunked_prefill:
            make_room()
        decoding = [job for job in running if job.computed >= job.prompt and job.computed == job.tokens() - 1]
        if engine.chunked_prefill:
            take_next(decoding)
        budget = engine.max_batched_tokens - (len(decoding) if engine.chunked_prefill else 0)
        chunks: list[tuple[Job, int]] = []
        for job in running:
            if job not in decoding and budget > 0:
                chunks.append((job, min(budget, job.tokens() - job.computed)))
                budget -= chunks[-1][1]
        while waiting and budget > 0 and not preempted and len(running) < engine.max_sequences:
            job = waiting[0]
            if not engine.chunked_prefill and chunks and job.tokens() > budget:
                break
            hit = cache.hit(job) if engine.prefix_caching else []
            new = cache.take(hit, -(-job.tokens() // size) - len(hit))
            if new is None:
                break
            waiting.remove(job)
            job.blocks = hit + new
            cache.name(job)
            job.computed = min(len(hit), (job.tokens() - 1) // size) * size
            job.cached = job.computed if job.cached < 0 else job.cached
            running.append(job)
            left = job.tokens() - job.computed
            chunks.append((job, min(budget, left) if engine.chunked_prefill else left))
            budget -= chunks[-1][1]
        if not engine.chunked_prefill:
            if chunks:
                decoding = []
            else:
                make_room()
                decoding = [job for job in decoding if job in running]
                take_next(decoding)
        if not chunks and not decoding:
            now = coming[0].entered
            continue
        attention = sum(c * (job.computed + c / 2) for job, c in chunks)
        context = sum(job.computed + 1 for job in decoding)
        now += (
            engine.step_ms(
                prompt_tokens=sum(c for _, c in chunks),
                decoding=len(decoding),
                context_tokens=context,
                attention=attention,
            )
            / 1e3
        )
        for job, c in [*chunks, *((job, 1) for job in decoding)]:
            job.computed += c
            cache.name(job)
            if job.computed < job.tokens():
                continue
            if job.generated == 0:
                job.first = now + back
            job.generated += 1
            if job.generated >= job.output:
                job.finished = now + back
                running.remove(job)
                cache.give_back(job)
    for job in jobs:
        if job.leaves < job.finished - back:
            job.status, job.finished = 1, float("nan")
        if job.status and job.first > job.leaves:
            job.first = float("nan")
    return jobs
