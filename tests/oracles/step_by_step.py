"""An oracle: one engine without prefix sharing, every step taken, in plain Python and written from the definition."""

from __future__ import annotations

from dataclasses import dataclass

from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel


@dataclass
class Running:
    index: int
    prompt_left: int
    generated: int = 0


def serve(engine: EngineModel, workload: Workload) -> tuple[list[float], list[float]]:
    """Return first-token and finish times in seconds."""
    n = len(workload)
    prompt, output = workload.prompt_tokens.tolist(), workload.output_tokens.tolist()
    first, finished = [0.0] * n, [0.0] * n
    now, arrived, waiting, running = 0.0, 0, [], []

    def held() -> int:
        block = engine.block_tokens
        return sum((prompt[r.index] + output[r.index] + block - 1) // block * block for r in running)

    while arrived < n or waiting or running:
        while arrived < n and workload.arrived_at_s[arrived] <= now:
            waiting.append(arrived)
            arrived += 1
        decoding = [r for r in running if r.prompt_left == 0]
        budget = engine.max_batched_tokens - len(decoding)
        chunks: list[tuple[Running, int]] = []
        for r in running:
            if r.prompt_left and budget:
                chunks.append((r, min(budget, r.prompt_left)))
                budget -= chunks[-1][1]
        while waiting and budget and len(running) < engine.max_sequences:
            i = waiting[0]
            block = engine.block_tokens
            if held() + (prompt[i] + output[i] + block - 1) // block * block > engine.kv_capacity_tokens:
                break
            if any(r.prompt_left > c for r, c in chunks):
                break
            running.append(Running(waiting.pop(0), prompt[i]))
            chunks.append((running[-1], min(budget, prompt[i])))
            budget -= chunks[-1][1]
        if not chunks and not decoding:
            now = max(now, float(workload.arrived_at_s[arrived]))
            continue
        attention = sum(c * ((prompt[r.index] - r.prompt_left) + c / 2) for r, c in chunks)
        context = sum(prompt[r.index] + r.generated for r in decoding)
        now += (
            engine.step_ms(
                prompt_tokens=sum(c for _, c in chunks),
                decoding=len(decoding),
                context_tokens=context,
                attention=attention,
            )
            / 1e3
        )
        for r, c in chunks:
            r.prompt_left -= c
            if r.prompt_left == 0:
                r.generated = 1
                first[r.index] = now + engine.request_overhead_ms / 1e3
        for r in decoding:
            r.generated += 1
        for r in [r for r in running if r.prompt_left == 0 and r.generated >= output[r.index]]:
            finished[r.index] = now + engine.request_overhead_ms / 1e3
            running.remove(r)
    return first, finished
