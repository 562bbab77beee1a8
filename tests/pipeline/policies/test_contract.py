"""Every registered policy keeps the contract, alone and with another pick: one check, one policy, one test."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.engine import EngineModel
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rows import rows_of
from lodestar.pipeline.replay import policies
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.decisions import score_decisions
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.routing.contract import ENGINE, Fleet, Models, Policy, spaces
from lodestar.pipeline.replay.routing.wrapped import WRAPPERS
from policy_streams import INSTANCES, Stream, snapshot, states

Floats = NDArray[np.float64]

NAMES = [policy.name for policy in POLICIES]
TEXTS = [*NAMES, *(f"{kind}:{name}" for kind in WRAPPERS for name in NAMES)]

#: Policies whose costs follow the order in which candidates are listed, and why.
ORDERED = {
    "round-robin": "takes the next of the list",
    "aibrix-preble": "the first of equals wins, and its costs say so",
    "ray-prefix-affinity": "the first of equals wins before others are left out",
    "sglang-cache-aware": "the first of equals wins, and its costs say so",
}
#: Policies to which an instance without metrics may be invisible though it is idle, and why.
NO_BALANCE = {
    "learned": "follows its model, whatever that makes of missing features",
    "lodestar": "follows its model, whatever that makes of missing features",
    "least-kv-cache": "passes over an instance without the metric, as AIBrix does",
}
#: Policies that remember of an instance when requests were answered, and in which order.
TIMED = {
    "greedy-engine-ttft": "the time at which the engine began on what it has to do",
    "preble": "the last decode times, in the order in which they came",
}
#: Columns of `Memory.of_instance` that outlive the requests, and what they are; all others come back to 0.
LASTING = {
    "least-latency": (range(10), "means of what was answered"),
    "throughput": (range(3), "means of what was answered"),
    "sglang-cache-aware": ((0,), "the size of its tree"),
    "ray-prefix-affinity": (range(3), "its tree, and the ends of the list of what to evict"),
    "production-stack-session": (range(2), "requests of the last minute, whether there were any"),
    "aibrix-preble": (range(4), "its tree, and the requests of the last minutes"),
    "greedy-engine-ttft": (range(5, 10), "times, and means of what has ended"),
    "preble": ((0, 2, 3, *range(5, 411)), "its tree, the requests of the last minutes, the last decode times"),
}
#: Policies that stem from nobody else.
OURS = ("random", "oracle-ttft")

CLUSTER = Cluster.of(
    [EngineModel.preset("l40s-llama-3.1-8b")] * 3, sharing_workload(250, rate_per_s=6.0, sharing_ratio=0.5, seed=5)
)


@pytest.fixture(scope="module")
def random_log() -> RequestLog:
    return recorded_log("made", CLUSTER, make_policy("random"), CLUSTER.replay(make_policy("random"), record=True))


@pytest.fixture(scope="module")
def models(random_log: RequestLog) -> Models:
    """Predictors of TTFT and TPOT, fitted to a small log."""
    workload = workload_of(random_log)
    features = chosen_features(random_log, decision_features(random_log, complete_snapshot(random_log, workload)[0]))
    targets = (schema.TTFT_MS, schema.TPOT_MS)
    rows = {target: rows_of(random_log, features, workload.arrived_at_s, target) for target in targets}
    return Models.of(*(fit(rows[target], target, Parameters(), 0)[0] for target in targets))


@pytest.fixture(params=TEXTS)
def policy(request: pytest.FixtureRequest, models: Models) -> Policy:
    return make_policy(request.param, models)


def bare(policy: Policy) -> str:
    """Return the name without a wrapper's."""
    return policy.name.rpartition(":")[2]


def test_the_same_seed_makes_the_same_choices(policy: Policy) -> None:
    def choices() -> list[int]:
        rng = np.random.default_rng(7)
        made: list[int] = []
        for ask in Stream(states(policy), 1, goes=lambda *_: made[-1]):
            made.append(policy.choose(ask.request, ask.snapshot, ask.state, rng).instance)
        return made

    assert choices() == choices()


def test_probabilities_sum_to_one_over_the_candidates(policy: Policy) -> None:
    for ask in Stream(states(policy), 2, leaving=True):
        cost, probability = ask.state.decide(ask.request, ask.snapshot)
        gone = [j for j in range(INSTANCES) if j not in ask.state.candidates]
        assert (probability >= 0).all()
        assert probability.sum() == pytest.approx(1.0, abs=1e-9)
        assert (probability[gone] == 0).all()
        assert np.isposinf(cost[gone]).all()


def test_instances_have_no_number_that_matters(policy: Policy) -> None:
    """The same instances at other places of the fleet, listed as before: the probabilities go with them."""
    place = np.array([3, 0, 4, 1, 2])
    moved = states(policy, place)
    moved.candidates = place.tolist()
    for one, other in zip(Stream(states(policy), 3), Stream(moved, 3, place=place), strict=True):
        straight = one.state.decide(one.request, one.snapshot)[1]
        np.testing.assert_allclose(other.state.decide(other.request, other.snapshot)[1][place], straight, atol=1e-12)


def test_the_order_of_candidates_has_no_effect_unless_the_peers_has(policy: Policy) -> None:
    """Costs never depend on it but for `ORDERED`; probabilities only where the first or last of equals wins."""
    if bare(policy) in ORDERED:
        pytest.skip(ORDERED[bare(policy)])
    for one, other in zip(Stream(states(policy), 4), Stream(states(policy), 4, shuffled=True), strict=True):
        (cost, probability), (again, anew) = (each.state.decide(each.request, each.snapshot) for each in (one, other))
        np.testing.assert_allclose(again, cost, atol=1e-12)
        if policy.pick().ties == "random":
            np.testing.assert_allclose(anew, probability, atol=1e-12)


def test_an_instance_without_metrics_is_handled_and_not_invisible(policy: Policy) -> None:
    state, rng, silent = states(policy), np.random.default_rng(5), 2
    total, busy = 0.0, []
    for number in range(60):
        seen = snapshot(rng) + 8.0
        seen[:, schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)] = 0.0
        seen[:, schema.SNAPSHOT_FIELDS.index(schema.KV_USAGE_RATIO)] = 0.9
        seen[silent] = np.nan
        request = state.request(0.1 * number, 200, [1000 * number + at for at in range(10)], number)
        probability = state.decide(request, seen)[1]
        assert np.isfinite(probability).all()
        assert probability.sum() == pytest.approx(1.0)
        total += probability[silent]
        busy.append((request, (0, 1, 3, 4)[number % 4]))
        state.sent(*busy[-1], np.nan_to_num(seen))
        if number >= 8:
            state.done(*busy.pop(0), request.now_s, queue_s=1.0, prefill_s=1.0, decode_s=1.0, output_tokens=50.0)
    if bare(policy) not in NO_BALANCE:
        assert total > 0


def test_one_candidate_gets_everything_and_none_is_an_error(policy: Policy) -> None:
    rng = np.random.default_rng(6)
    for ask in Stream(states(policy), 6, requests=5):
        kept, ask.state.candidates = ask.state.candidates, [3]
        choice = policy.choose(ask.request, ask.snapshot, ask.state, rng)
        assert (choice.instance, choice.probability.tolist()) == (3, [0.0, 0.0, 0.0, 1.0, 0.0])
        ask.state.candidates = []
        with pytest.raises(ConfigError, match="has no candidate for request"):
            policy.choose(ask.request, ask.snapshot, ask.state, rng)
        ask.state.candidates = kept


def test_the_rule_changes_nothing(policy: Policy) -> None:
    for ask in Stream(states(policy), 8):
        before = [array.copy() for array in ask.state.memory]
        seen = ask.snapshot.copy()
        ask.state.decide(ask.request, ask.snapshot)
        assert all(np.array_equal(was, now) for was, now in zip(before, ask.state.memory, strict=True))
        assert np.array_equal(seen, ask.snapshot)


def test_what_an_instance_has_in_flight_comes_back_to_zero(policy: Policy) -> None:
    state = states(policy)
    assert len(list(Stream(state, 9))) == 40
    assert all(np.isfinite(array).all() for array in state.memory)
    lasting = LASTING.get(bare(policy), ((), ""))[0]
    columns = [k for k in range(policy.memory.of_instance) if k not in lasting]
    assert not state.memory.of_instance[:, columns].any()


@pytest.mark.parametrize("leaving", [False, True], ids=["all-stay", "some-leave"])
def test_what_was_in_flight_leaves_no_trace(leaving: bool, policy: Policy) -> None:
    """Once all is over, the instances are as if every request had been answered at once."""
    if bare(policy) in TIMED:
        pytest.skip(TIMED[bare(policy)])
    slow, quick = states(policy), states(policy)
    assert len(list(Stream(slow, 9, leaving=leaving, again=False))) == 40
    assert len(list(Stream(quick, 9, leaving=leaving, again=False, at_once=True))) == 40
    np.testing.assert_allclose(slow.memory.of_instance, quick.memory.of_instance, atol=1e-9)


def test_a_log_of_its_replay_has_the_chances_that_scoring_gives(policy: Policy) -> None:
    """The replay's compressed prefixes and the blocks of a log lead to the same decisions: one policy, three doors."""
    if policy.predictor == ENGINE:
        pytest.skip("only a replay can look into engines")
    log = recorded_log("made", CLUSTER, policy, CLUSTER.replay(policy, seed=3, record=True))
    workload = workload_of(log)
    fleet = Fleet(log.instances, CLUSTER.engines)
    scored = score_decisions(policy, log, workload, complete_snapshot(log, workload)[0], fleet)
    assert scored.not_scored == {}
    same = np.isclose(scored.probability, log.probability, rtol=0, atol=1e-9).all(axis=1)
    assert same.mean() > 0.99  # times that went through milliseconds may fall on the other side of an arrival


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_it_does_not_have_is_refused(name: str, models: Models) -> None:
    with pytest.raises(ConfigError, match="setting 'nonsense' is not known"):
        make_policy(f"{name},nonsense=1", models)


@pytest.mark.parametrize("kind", POLICIES, ids=NAMES)
def test_every_default_lies_where_it_is_searched(kind: type[Policy]) -> None:
    default: dict[str, Any] = {each.name: each.default for each in fields(kind)}  # type: ignore[arg-type]
    for name, space in spaces(kind).items():
        assert space.low <= default[name] <= space.high, name
        assert space.low < space.high, name
        assert not space.log or space.low > 0, name
        assert not space.whole or float(default[name]).is_integer(), name


@pytest.mark.parametrize("kind", POLICIES, ids=NAMES)
def test_every_policy_says_what_it_is_and_whose(kind: type[Policy]) -> None:
    text = kind.__doc__ or ""
    assert text.partition("\n")[0].endswith((".", ":")), "one sentence first: lodestar policies shows it"
    assert "Source:" in text or kind.name in OURS
    assert set(kind.fields) <= set(schema.SNAPSHOT_FIELDS)


def test_names_are_unique_and_the_list_is_complete() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(name == name.lower() and ":" not in name and "," not in name for name in NAMES)
    for module in pkgutil.iter_modules(policies.__path__, f"{policies.__name__}."):
        found = vars(importlib.import_module(module.name)).values()
        own = [each for each in found if isinstance(each, type) and each.__module__ == module.name]
        made = [each for each in own if issubclass(each, Policy)]
        assert len(made) == 1, f"{module.name} has {len(made)} policies; expected one"
        assert made[0] in POLICIES, f"{made[0].__name__} is not in the list"
