"""Sweeps and the map that runs them: the same bytes on any number of cores, errors as errors, ctrl-C at once."""

from __future__ import annotations

import dataclasses
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.parallel import SERIAL, Mapper, Run, mapper, replay_all, replay_one
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.compiled import Parameters
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.summary import summary
from lodestar.pipeline.replay.sweep import sweep, sweep_frame
from lodestar.pipeline.replay.sweep_points import cluster_at, parse_sweep, points

POLICIES = {name: make_policy(name) for name in ("random", "least-request", "aibrix-prefix-cache")}
SEEDS = range(3)


@pytest.fixture
def cluster(busy: Workload, slow: EngineModel) -> Cluster:
    return Cluster.of([slow] * 3, busy)


def bytes_of(outcome: Outcome) -> list[object]:
    values = [getattr(outcome, field.name) for field in dataclasses.fields(outcome)]
    return [value.tobytes() if isinstance(value, np.ndarray) else value for value in values]


def swept(cluster: Cluster, *texts: str, run_by: Mapper = SERIAL) -> list[dict[str, object]]:
    return sweep(cluster, POLICIES, SEEDS, [parse_sweep(text) for text in texts], "random", "trusted", mapper=run_by)


def test_replays_are_the_same_to_the_byte_on_one_core_and_on_many(cluster: Cluster) -> None:
    alone = replay_all(cluster, POLICIES, SEEDS, record=True)
    with mapper(4) as many:
        together = replay_all(cluster, POLICIES, SEEDS, many, record=True)
    assert list(together) == list(alone)
    for name, outcomes in alone.items():
        assert [bytes_of(one) for one in outcomes] == [bytes_of(other) for other in together[name]]


def test_only_the_first_seed_keeps_what_the_router_saw(cluster: Cluster) -> None:
    kept = [len(outcome.snapshots) for outcome in replay_all(cluster, POLICIES, SEEDS, record=True)["random"]]
    assert kept == [len(cluster.workload), 0, 0]


def test_progress_is_told_replay_by_replay(cluster: Cluster) -> None:
    told: list[tuple[str, int, int]] = []
    with mapper(2) as both:
        replay_all(cluster, POLICIES, SEEDS, both, lambda *what: told.append(what))
    assert told == [("replay", done, 9) for done in range(1, 10)]


def test_a_replay_can_be_sent_to_another_process(cluster: Cluster) -> None:
    run = Run(cluster, POLICIES["least-request"], 1)
    assert bytes_of(replay_one(pickle.loads(pickle.dumps(run)))) == bytes_of(replay_one(run))


@dataclasses.dataclass(frozen=True, slots=True)
class Broken(RandomChoice):
    """A policy whose settings are not usable."""

    name: ClassVar[str] = "broken"

    def parameters(self, fleet: Fleet) -> Parameters:
        raise ConfigError("broken is not usable; expected another. Choose one")


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_of_a_worker_comes_back_as_it_is(workers: int, cluster: Cluster) -> None:
    with mapper(workers) as run_by, pytest.raises(ConfigError, match=r"^broken is not usable"):
        replay_all(cluster, {**POLICIES, "broken": Broken()}, SEEDS, run_by)


@pytest.fixture
def heard() -> Iterator[None]:
    """Let ctrl-C be heard, also where a shell started the tests in the background and has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_it_and_what_has_not_begun_never_does() -> None:
    begun: list[int] = []

    def work(task: int) -> int:
        begun.append(task)
        if task == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.2)
        return task

    with pytest.raises(KeyboardInterrupt), mapper(2) as both:
        list(both.map(work, range(50)))
    time.sleep(0.5)
    assert len(begun) < 10


def test_one_row_a_point_and_policy_in_the_order_of_the_points(cluster: Cluster) -> None:
    rows = swept(cluster, "rate=0.5,1", "instances=2,3")
    assert [(row["rate"], row["instances"]) for row in rows[::3]] == [(0.5, 2), (0.5, 3), (1.0, 2), (1.0, 3)]
    assert [row["policy"] for row in rows[:3]] == list(POLICIES)
    assert {row["verdict"] for row in rows} == {"trusted"}
    for row in rows:
        assert row["ttft_mean_low_ms"] <= row["ttft_mean_ms"] <= row["ttft_mean_high_ms"]  # type: ignore[operator]
        assert row["ttft_p99_low_ms"] <= row["ttft_p99_ms"] <= row["ttft_p99_high_ms"]  # type: ignore[operator]


def test_a_sweep_is_the_same_on_one_core_and_on_many(cluster: Cluster) -> None:
    with mapper(3) as many:
        assert swept(cluster, "rate=0.8,1.2", run_by=many) == swept(cluster, "rate=0.8,1.2")


def test_the_point_that_changes_nothing_is_the_ordinary_replay(cluster: Cluster) -> None:
    (row, *_) = swept(cluster, "rate=1", "cache=1", "instances=3")
    found = summary(replay_all(cluster, POLICIES, SEEDS), cluster.workload, "random")["policies"][0]
    assert row["ttft_mean_ms"] == found["ttft_ms"]["mean"]
    assert [row["ttft_mean_low_ms"], row["ttft_mean_high_ms"]] == found["ttft_ms"]["ci95"]
    assert row["hit_ratio"] == found["hit_ratio"]


@pytest.mark.parametrize(
    ("text", "column", "rises"),
    [
        ("rate=0.5,1", "ttft_mean_ms", True),
        ("instances=2,4", "ttft_mean_ms", False),
        ("cache=0.1,1", "hit_ratio", True),
    ],
)
def test_each_parameter_does_what_it_says(text: str, column: str, rises: bool, cluster: Cluster) -> None:
    first, second = (row[column] for row in swept(cluster, text)[2::3])
    assert (second > first) is rises  # type: ignore[operator]


@pytest.mark.parametrize("name", ["scrape-interval-ms", "index-capacity-blocks", "index-ttl-s"])
def test_the_routers_view_can_be_swept(name: str, cluster: Cluster) -> None:
    at = cluster_at(cluster, {name: 7})
    assert getattr(at.view, name.replace("-", "_")) == 7
    assert at.engines == cluster.engines


def test_an_index_that_forgets_at_once_finds_fewer_prefixes(cluster: Cluster) -> None:
    forgetful, mindful = (row["hit_ratio"] for row in swept(cluster, "index-ttl-s=0.01,0")[2::3])
    assert forgetful < mindful  # type: ignore[operator]


def test_more_instances_are_as_the_first_ones_again(busy: Workload, slow: EngineModel) -> None:
    base = Cluster.of([slow, slow.slowed(2.0)], busy)
    assert cluster_at(base, {"instances": 3}).engines == [slow, slow.slowed(2.0), slow]


def test_the_rate_is_a_factor_on_arrivals_and_leaves_the_rest(cluster: Cluster) -> None:
    doubled = cluster_at(cluster, {"rate": 2.0}).workload
    assert np.array_equal(doubled.arrived_at_s * 2.0, cluster.workload.arrived_at_s)
    assert doubled.block_ids is cluster.workload.block_ids


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rat=1", "--sweep parameter 'rat' is not known; did you mean 'rate'?"),
        ("rate", "--sweep rate: '' is no value; expected factors above 0"),
        ("rate=1,fast", "--sweep rate: 'fast' is no value"),
        ("rate=0", "--sweep rate: '0' is no value"),
        ("rate=inf", "--sweep rate: 'inf' is no value"),
        ("instances=2.5", "--sweep instances: '2.5' is no value; expected whole numbers of instances"),
        ("instances=0", "--sweep instances: '0' is no value"),
        ("cache=-1", "--sweep cache: '-1' is no value"),
        ("rate=1,1.0", "--sweep rate=1,1.0: a value is named twice"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_sweep(text)
    assert str(caught.value).startswith(said)


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="--sweep rate is given twice"):
        points([parse_sweep("rate=1"), parse_sweep("rate=2")])


def test_a_sweep_is_written_as_it_is_read() -> None:
    for text in ("rate=0.8,1,1.2", "instances=4,8", "index-capacity-blocks=0,31250"):
        assert str(parse_sweep(text)) == text


def test_a_point_that_no_cluster_can_be_is_said_before_anything_is_replayed(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match=r"^--sweep cache=0\.001: a request of \d+ tokens does not fit"):
        swept(cluster, "cache=1,0.001")


def test_the_frame_has_one_flat_row_a_point_and_policy(cluster: Cluster) -> None:
    rows = swept(cluster, "rate=0.8,1.2")
    frame = sweep_frame([{**rows[0], "flags": ["unstable", "depends on its path"]}, *rows[1:]])
    assert frame.columns[:3] == ["rate", "policy", "ttft_mean_ms"]
    assert not any(dtype.is_nested() for dtype in frame.dtypes)
    assert frame["flags"].to_list()[:2] == ["unstable; depends on its path", ""]
