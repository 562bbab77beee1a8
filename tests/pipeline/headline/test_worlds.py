"""From names to clusters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lodestar.pipeline.headline.plan import FLEETS, LOADS, Effort, Spec, engines_of, plan
from lodestar.pipeline.headline.worlds import rates_per_s, world

EFFORT = Effort(requests=400)


def test_the_plan_has_every_workload_load_and_fleet_once() -> None:
    specs = list(plan(conversation=True))
    assert len(set(specs)) == len(specs) == 5 * len(LOADS) * len(FLEETS) + 4 * len(FLEETS)


def test_a_seed_draws_other_arrivals_and_prompts_and_the_same_seed_the_same() -> None:
    spec = Spec("sharing47", "homogeneous", 0.75)
    one, again, other = (world(spec, EFFORT, seed).cluster.workload for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.arrived_at_s, again.arrived_at_s)
    assert (one.arrived_at_s != other.arrived_at_s).mean() > 0.9
    assert (one.prompt_tokens != other.prompt_tokens).mean() > 0.5


def test_the_rate_is_the_share_of_saturation_and_shifts_in_the_middle() -> None:
    half, most = (rates_per_s(Spec("sharing28", "homogeneous", load), EFFORT)[0] for load in (0.5, 0.9))
    assert most == pytest.approx(1.8 * half)
    spec = Spec("rate-shift", "homogeneous", 0.75)
    at_s = world(spec, EFFORT, 0).cluster.workload.arrived_at_s
    slow, fast = 200 / at_s[200], 200 / (at_s[-1] - at_s[200])
    assert (slow, fast) == pytest.approx(rates_per_s(spec, EFFORT), rel=0.02)
    assert fast / slow == pytest.approx(1.8, rel=0.02)


def test_a_failure_takes_an_instance_and_a_scale_out_brings_one() -> None:
    for workload, kind in (("failure", "fail"), ("scale-out", "join")):
        made = world(Spec(workload, "heterogeneous", 0.75), EFFORT, 0)
        (event,) = made.cluster.events
        assert (event.kind, event.instance, made.changed_from) == (kind, 0, 200)
        assert event.at_s == made.cluster.workload.arrived_at_s[200]
    outcome = made.cluster.replay(seed=0)
    assert 0 not in outcome.instance[:200]
    assert 0 in outcome.instance[200:]


def test_the_slow_instances_have_neither_cache_nor_chunks() -> None:
    fast, slow = engines_of("heterogeneous")
    assert (len(fast), len(slow)) == (7, 8)
    assert (slow[0].prefix_caching, slow[0].chunked_prefill) == (False, False)
    assert slow[0].prompt_token_ms == pytest.approx(3 * fast[0].prompt_token_ms)


def test_the_trace_gives_as_many_requests_under_every_seed(traces: Path) -> None:
    effort = replace(EFFORT, requests=2500, conversation=traces / "mooncake" / "conversation_trace.jsonl.gz")
    drawn = [world(Spec("conversation", "homogeneous", 0.5), effort, seed).cluster.workload for seed in (0, 1)]
    assert {len(each) for each in drawn} == {2500}
    assert max(each.prompt_tokens.max() for each in drawn) <= 10_000
    assert (drawn[0].prompt_tokens != drawn[1].prompt_tokens).mean() > 0.9
