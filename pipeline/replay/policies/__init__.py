"""Routing policies, one file each, found by name."""

from __future__ import annotations

from typing import Final

from lodestar.pipeline.replay.policies.aibrix_preble import AibrixPreble
from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
from lodestar.pipeline.replay.policies.dynamo_kv import DynamoKv
from lodestar.pipeline.replay.policies.greedy_engine_ttft import GreedyEngineTtft
from lodestar.pipeline.replay.policies.kubeai_chwbl import KubeaiChwbl
from lodestar.pipeline.replay.policies.learned import Learned
from lodestar.pipeline.replay.policies.least_kv_cache import LeastKvCache
from lodestar.pipeline.replay.policies.least_latency import LeastLatency
from lodestar.pipeline.replay.policies.least_prefill_tokens import LeastPrefillTokens
from lodestar.pipeline.replay.policies.least_request import LeastRequest
from lodestar.pipeline.replay.policies.least_uncached_tokens import LeastUncachedTokens
from lodestar.pipeline.replay.policies.llm_d_default import LlmDDefault
from lodestar.pipeline.replay.policies.llm_d_predicted_latency import LlmDPredictedLatency
from lodestar.pipeline.replay.policies.llm_d_weighted_random import LlmDWeightedRandom
from lodestar.pipeline.replay.policies.lmetric import Lmetric
from lodestar.pipeline.replay.policies.lodestar import Lodestar
from lodestar.pipeline.replay.policies.mooncake import Mooncake
from lodestar.pipeline.replay.policies.oracle_ttft import OracleTtft
from lodestar.pipeline.replay.policies.power_of_two import PowerOfTwo
from lodestar.pipeline.replay.policies.preble import Preble
from lodestar.pipeline.replay.policies.prefix_hit_threshold import PrefixHitThreshold
from lodestar.pipeline.replay.policies.production_stack_prefix_aware import ProductionStackPrefixAware
from lodestar.pipeline.replay.policies.production_stack_session import ProductionStackSession
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.policies.ray_prefix_affinity import RayPrefixAffinity
from lodestar.pipeline.replay.policies.round_robin import RoundRobin
from lodestar.pipeline.replay.policies.session_affinity import SessionAffinity
from lodestar.pipeline.replay.policies.sglang_cache_aware import SglangCacheAware
from lodestar.pipeline.replay.policies.throughput import Throughput
from lodestar.pipeline.replay.routing.contract import Policy

__all__ = ["POLICIES"]

#: A test keeps this list complete.
POLICIES: Final[tuple[type[Policy], ...]] = (
    RandomChoice,
    RoundRobin,
    LeastRequest,
    PowerOfTwo,
    LeastKvCache,
    LeastPrefillTokens,
    LeastUncachedTokens,
    GreedyEngineTtft,
    LeastLatency,
    Throughput,
    SessionAffinity,
    PrefixHitThreshold,
    AibrixPrefixCache,
    AibrixPreble,
    Preble,
    Lmetric,
    Mooncake,
    LlmDDefault,
    LlmDWeightedRandom,
    DynamoKv,
    SglangCacheAware,
    RayPrefixAffinity,
    ProductionStackPrefixAware,
    ProductionStackSession,
    KubeaiChwbl,
    Learned,
    LlmDPredictedLatency,
    Lodestar,
    OracleTtft,
)
