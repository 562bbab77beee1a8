"""The online loop in closed replay: nothing is known too early, and it learns what it is there for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.ingest import ingest
from lodestar.data.workloads.transforms import scale_rate
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.pipeline.headline.plan import Effort, Spec
from lodestar.pipeline.headline.worlds import world
from lodestar.pipeline.online.imposed import imposed_delays, learned_weights
from lodestar.pipeline.online.policies import LEARNING, LodestarOnline
from lodestar.pipeline.online.replayed import OnlineRun
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.events import Event
from lodestar.pipeline.replay.policy_names import find_policy, make_policy
from lodestar.pipeline.replay.record import record_replay
from lodestar.pipeline.replay.routing.learning import LearningPolicy
from lodestar.pipeline.replay.state import OK


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Seven fast and eight slow instances that cache nothing, at three quarters of what they can serve."""
    return world(Spec("sharing47", "heterogeneous", 0.75), Effort(requests=2000), 0).cluster


class Watched(OnlineRun):
    """Keeps what each training was given."""

    given: list[tuple[float, Finished]]

    def trained(self, rows: Finished, at_s: float) -> Brain:
        self.given = [*getattr(self, "given", []), (at_s, rows)]
        return super().trained(rows, at_s)


class Watcher(Watched):
    """Keeps at which time which model decided."""

    served: list[tuple[float, str]]

    def decide(self, i: int) -> int:
        chosen = super().decide(i)
        brain = self.router.brain
        self.served = [*getattr(self, "served", []), (float(self._clock_s[0]), brain.version if brain else "")]
        return chosen


@pytest.fixture(scope="module")
def run(cluster: Cluster) -> tuple[Watcher, Outcome]:
    watched = Watcher(LodestarOnline())
    return watched, cluster.replay(watched, seed=3, record=True)


def same(one: Outcome, other: Outcome) -> bool:
    return bool((one.instance == other.instance).all() and (one.ttft_ms == other.ttft_ms).all())


def test_a_seed_makes_the_run_to_the_bit_and_another_seed_another(cluster: Cluster) -> None:
    policy = find_policy("lodestar-online,exploration=0.05")
    assert isinstance(policy, LearningPolicy)
    few = Cluster.of(cluster.engines, cluster.workload.head(700), cluster.view)
    runs = [few.replay(policy.fresh(), seed=seed) for seed in (1, 1, 2)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_nothing_is_learned_before_it_is_known_and_no_model_serves_before_it_is_trained(
    run: tuple[Watcher, Outcome],
) -> None:
    watched, outcome = run
    assert (outcome.status == OK).all()
    assert len(watched.trainings) == len(watched.given) >= 3
    for training, (at_s, rows) in zip(watched.trainings, watched.given, strict=True):
        assert rows.finished_at_s.max() <= at_s == training.at_s
        assert training.served_from_s == pytest.approx(at_s + 1.0 + 0.2e-3 * len(rows))
        assert len(np.unique(rows.decided_at_s)) == len(rows)
    for number, training in enumerate(watched.trainings, 1):
        since_s = [at_s for at_s, version in watched.served if version == f"online-{number}"]
        assert bool(since_s) == (training.served_from_s <= watched.served[-1][0])
        assert min(since_s, default=np.inf) >= training.served_from_s
    assert watched.served[0][1] == ""


def test_it_is_taught_what_it_decided_by(run: tuple[Watcher, Outcome]) -> None:
    """The rows of a training are the features of the chosen candidates, as they stood at the decision."""
    watched, outcome = run
    _, rows = watched.given[0]
    decided = {at_s: i for i, at_s in enumerate(watched._decided_s)}
    which = [decided[at_s] for at_s in rows.decided_at_s]
    assert rows.ttft_ms == pytest.approx(outcome.ttft_ms[which])
    assert (rows.features[:, 0] == watched._features[which, 0]).all()
    assert set(rows.kind) == {"kind-0", "kind-1"}


def test_it_beats_the_best_rule_where_instances_differ(cluster: Cluster, run: tuple[Watcher, Outcome]) -> None:
    _, outcome = run
    half = len(outcome.ttft_ms) // 2
    for rule in ("lmetric", "least-uncached-tokens"):
        its = cluster.replay(make_policy(rule), seed=3)
        assert np.nanmean(its.ttft_ms[half:]) > 1.1 * np.nanmean(outcome.ttft_ms[half:])


def test_probabilities_and_costs_are_recorded(cluster: Cluster, tmp_path: Path) -> None:
    few = Cluster.of(cluster.engines, cluster.workload.head(600), cluster.view)
    policy = find_policy("lodestar-online,exploration=0.1")
    assert isinstance(policy, LearningPolicy)
    outcome = few.replay(policy.fresh(), seed=0, record=True)
    assert outcome.probabilities.sum(axis=1) == pytest.approx(np.ones(600))
    chosen = outcome.probabilities[np.arange(600), outcome.instance]
    assert chosen.min() == pytest.approx(0.1 / 15)
    assert np.isfinite(outcome.costs).all()
    record_replay(tmp_path / "log.jsonl", few, policy, 0)
    report = ingest(Workspace.open(tmp_path / "home"), [tmp_path / "log.jsonl"], "d").to_dict()
    assert (report["rows_stored"], report["rows_rejected"]) == (600, 0)
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert sum(each["probability"] for each in first["candidates"]) == pytest.approx(1.0)


def test_instances_come_and_go_while_it_learns() -> None:
    made = world(Spec("sharing09", "homogeneous", 0.75), Effort(requests=900), 0).cluster
    middle_s = float(made.workload.arrived_at_s[450])
    events = (Event(middle_s, "fail", 0), Event(middle_s, "join", 7))
    outcome = Cluster.of(made.engines, made.workload, made.view, events).replay(LodestarOnline().fresh(), seed=0)
    assert (outcome.status == OK).all()
    over = made.workload.arrived_at_s + outcome.e2e_ms / 1e3 < middle_s
    assert over.sum() > 300
    assert 7 not in outcome.instance[over]
    assert 7 in outcome.instance[450:]
    late = made.workload.arrived_at_s > middle_s
    assert 0 not in outcome.instance[late]


def test_a_choice_of_the_busier_instance_delays_others() -> None:
    engine = EngineModel.preset("a30-qwen2-7b")
    made = world(Spec("sharing47", "homogeneous", 0.9), Effort(requests=500), 0).cluster
    cluster = Cluster.of([engine] * 8, made.workload, made.view)
    terms, delays = imposed_delays(cluster, make_policy("greedy-engine-ttft"), list(range(100, 400)))
    weights = learned_weights(terms, delays)
    assert terms.shape == (300, 2)
    assert weights.ahead > 0.0
    # On an idle fleet nobody is delayed, wherever a request goes.
    alone = Cluster.of([engine] * 8, scale_rate(made.workload, 0.01), made.view)
    assert np.abs(imposed_delays(alone, make_policy("least-request"), [100, 200])[1]).max() < np.abs(delays).mean()


def test_the_list_of_learning_policies_is_complete_and_they_keep_their_word() -> None:
    def below(kind: type[Any]) -> set[type[Any]]:
        return {each for sub in kind.__subclasses__() for each in (sub, *below(sub))}

    ours = [each for each in below(LearningPolicy) if each.__module__.startswith("lodestar.")]
    assert {each.__name__ for each in ours if "name" in vars(each)} == {policy.__name__ for policy in LEARNING}
    assert len({policy.name for policy in LEARNING}) == len(LEARNING)
    for policy in LEARNING:
        assert isinstance(find_policy(policy.name), policy)
        with pytest.raises(ConfigError, match=policy.name):
            find_policy(f"{policy.name},unheard=1")
        with pytest.raises(ConfigError, match="learns"):
            find_policy(f"epsilon:{policy.name}")
    with pytest.raises(ConfigError, match="policy lodestar-online: outside"):
        find_policy("lodestar-online,outside=guess")
