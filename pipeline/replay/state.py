"""The state of a simulated cluster: arrays of records that compiled code reads and writes, nothing else.

Times are seconds, loads are tokens or requests. What a cache holds is kept by *slot*: node v of the prefix tree on
instance j has slot ``j * nodes + v``; the tail of request i, which only ever lives on one instance, has slot
``instances * nodes + i``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.prefixes import PrefixTree

__all__ = ["Instance", "Request", "Slot", "State", "new_state"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
R = TypeVar("R", covariant=True)


class Records(Protocol[R]):
    """An array of records."""

    def __getitem__(self, index: int) -> R:
        """Return one record, to read or to change in place."""

    def __len__(self) -> int:
        """Return the number of records."""


class Request:
    """One request and what becomes of it."""

    arrived_at_s: float
    prompt_tokens: int
    output_tokens: int
    path_from: int  # its nodes are State.path[path_from:path_to]
    path_to: int
    tail_tokens: int
    work_factor: float  # multiplies the time of its prefill
    instance: int
    cached_tokens: int  # found in the engine's cache
    router_hit_tokens: int  # that the router believed to be there
    first_token_s: float
    finished_s: float
    last_step: int  # the instance's step counter when its last token comes
    next_waiting: int


class Instance:
    """One engine: its coefficients, the step or run of decode steps in flight, its queue, batch and cache."""

    decode_base_s: float
    decode_sequence_s: float
    context_token_s: float
    prefill_base_s: float
    prompt_token_s: float
    prefill_sequence_s: float
    prefill_context_token_s: float
    attention_s: float
    overhead_s: float
    capacity_tokens: int
    max_batched_tokens: int
    max_sequences: int
    block_tokens: int
    prefix_caching: bool

    run_from_s: float
    run_until_s: float  # inf: nothing to do
    run_steps: int
    run_chunk: int  # prompt tokens in the step; 0 in a run of decode steps
    steps: int  # steps done

    decoding: int
    context_tokens: int  # under the decoding requests
    decoding_prompt_tokens: int  # the part of it that is prompt
    partial: int  # the request whose prompt is partly done, or -1
    partial_left: int
    fresh: int  # requests whose prompt ends with the step in flight

    first_waiting: int
    last_waiting: int
    waiting: int

    held_tokens: int  # of the cache, by running requests
    idle_tokens: int  # of the cache, by nobody: free to evict
    oldest: int  # idle slot to evict next, or -1
    newest: int

    inflight: int  # what the gateway counts by itself
    inflight_prefill: int
    prefill_tokens: int


class Slot:
    """What one instance holds of one node or tail."""

    cached_tokens: int
    users: int
    older: int
    newer: int


class State(NamedTuple):
    """Everything a run works on.

    Attributes:
        requests: in order of arrival, length n.
        instances: length m.
        slots: length m · nodes + n.
        decoding: heap of each instance's decoding requests, soonest to finish first, shape (m, max sequences).
        fresh: requests whose prompt ends with the step in flight, shape (m, max sequences).
        path: node ids of all requests.
        node_tokens: tokens of each node.
        routed_at_s: when the router last sent a node to an instance, shape (m, nodes).
    """

    requests: Records[Request]
    instances: Records[Instance]
    slots: Records[Slot]
    decoding: Ints
    fresh: Ints
    path: Ints
    node_tokens: Ints
    routed_at_s: Floats


def _dtype(record: type) -> np.dtype[np.void]:
    return np.dtype([(name, np.dtype(kind)) for name, kind in get_type_hints(record).items()], align=True)


def _column(records: Records[object], name: str) -> NDArray[np.generic]:
    return np.asarray(records)[name]


def new_state(models: list[EngineModel], workload: Workload, tree: PrefixTree, work_factor: Floats) -> State:
    """Lay out a workload before idle instances with empty caches."""
    n, m, nodes = len(workload), len(models), len(tree.node_tokens)
    requests = np.zeros(n, dtype=_dtype(Request))
    requests["arrived_at_s"] = workload.arrived_at_s
    requests["prompt_tokens"] = workload.prompt_tokens
    requests["output_tokens"] = workload.output_tokens
    requests["path_from"], requests["path_to"] = tree.offsets[:-1], tree.offsets[1:]
    requests["tail_tokens"] = tree.tail_tokens
    requests["work_factor"] = work_factor
    requests["first_token_s"] = requests["finished_s"] = np.nan
    instances = np.zeros(m, dtype=_dtype(Instance))
    for instance, model in zip(instances, models, strict=True):
        _configure(instance, model)
    slots = np.zeros(m * nodes + n, dtype=_dtype(Slot))
    widest = max(model.max_sequences for model in models)
    return State(
        requests=requests,
        instances=instances,
        slots=slots,
        decoding=np.zeros((m, widest), dtype=np.int64),
        fresh=np.zeros((m, widest), dtype=np.int64),
        path=tree.path,
        node_tokens=tree.node_tokens,
        routed_at_s=np.full((m, max(nodes, 1)), -np.inf),
    )


def _configure(instance: np.void, model: EngineModel) -> None:
    for name in instance.dtype.names or ():
        if hasattr(model, name):
            instance[name] = getattr(model, name)
        elif hasattr(model, milliseconds := name.removesuffix("_s") + "_ms"):
            instance[name] = getattr(model, milliseconds) / 1e3
    instance["overhead_s"] = (model.request_overhead_ms + model.response_overhead_ms) / 1e3
    instance["capacity_tokens"] = model.kv_capacity_tokens
    instance["run_until_s"] = np.inf
    for name in ("partial", "first_waiting", "last_waiting", "oldest", "newest"):
        instance[name] = -1
