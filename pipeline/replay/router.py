"""What the router sees and does at each arrival: the snapshot, the draw, the dispatch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import jit
from lodestar.pipeline.replay.engine import arrive, decode_steps_done
from lodestar.pipeline.replay.state import Request, State

__all__ = ["dispatch", "draw", "observe"]

Floats = NDArray[np.float64]

_HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_RUNNING = schema.SNAPSHOT_FIELDS.index(schema.RUNNING_REQUESTS)
_WAITING = schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)
_KV_USAGE = schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)
_PREFILL_REQUESTS = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_PREFILL_REQUESTS)
_DECODE_REQUESTS = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_DECODE_REQUESTS)
_PREFILL_TOKENS = schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)
_DECODE_TOKENS = schema.SNAPSHOT_FIELDS.index(schema.DECODE_TOKENS)
_AGE = schema.SNAPSHOT_FIELDS.index(schema.LAST_ACCESS_AGE_S)


@jit
def observe(state: State, i: int, prefix_ttl_s: float, out: Floats) -> None:
    """Fill `out` (m, len(SNAPSHOT_FIELDS)) with what the router knows of every instance as request i arrives.

    Hit ratios are the router's own belief, from what it sent where: it does not see the engines evict.
    """
    request = state.requests[i]
    now_s = request.arrived_at_s
    for j in range(out.shape[0]):
        instance = state.instances[j]
        hit, age_s = _believed_hit(state, request, j, prefix_ttl_s)
        prefilling = instance.fresh + (1 if instance.partial >= 0 else 0)
        context = instance.context_tokens + instance.decoding * decode_steps_done(instance, now_s)
        out[j, _HIT] = min(hit / request.prompt_tokens, 1.0)
        out[j, _INFLIGHT] = instance.inflight
        out[j, _RUNNING] = instance.decoding + prefilling
        out[j, _WAITING] = instance.waiting
        out[j, _KV_USAGE] = instance.held_tokens / instance.capacity_tokens
        out[j, _PREFILL_REQUESTS] = instance.inflight_prefill
        out[j, _DECODE_REQUESTS] = instance.inflight - instance.inflight_prefill
        out[j, _PREFILL_TOKENS] = instance.prefill_tokens
        out[j, _DECODE_TOKENS] = context - instance.decoding_prompt_tokens
        out[j, _AGE] = age_s


@jit
def _believed_hit(state: State, request: Request, j: int, prefix_ttl_s: float) -> tuple[int, float]:
    """Return the tokens of the request's prefix that the router sent to j lately, and how long ago the deepest."""
    hit, age_s = 0, np.nan
    for at in range(request.path_from, request.path_to):
        node = state.path[at]
        since_s = request.arrived_at_s - state.routed_at_s[j, node]
        if since_s > prefix_ttl_s:
            break
        hit += state.node_tokens[node]
        age_s = since_s
    return hit, age_s


@jit
def draw(probability: Floats, uniform: float) -> int:
    """Pick an instance by its probability with one uniform number, so that the same number gives the same pick."""
    total = 0.0
    pick = -1
    for j in range(len(probability)):
        if probability[j] > 0.0:
            pick = j
            total += probability[j]
            if uniform < total:
                break
    return pick


@jit
def dispatch(state: State, i: int, j: int, hit_ratio: float) -> None:
    """Send request i to instance j and note what the gateway knows from then on."""
    request, instance = state.requests[i], state.instances[j]
    request.instance = j
    request.router_hit_tokens = int(hit_ratio * request.prompt_tokens + 0.5)
    for at in range(request.path_from, request.path_to):
        state.routed_at_s[j, state.path[at]] = request.arrived_at_s
    instance.inflight += 1
    instance.inflight_prefill += 1
    instance.prefill_tokens += request.prompt_tokens
    arrive(state, i, j, request.arrived_at_s)
