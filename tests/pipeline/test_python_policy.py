"""A user's policy in plain Python: found, checked, asked once a decision, and its mistakes said with file and line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.parallel import mapper, replay_all
from lodestar.pipeline.replay.policy_file import is_python_policy, load_python_policy
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.sweep import sweep
from lodestar.pipeline.replay.sweep_points import parse_sweep

LEAST = """
    def choose(self, request, snapshot, rng):
        load = snapshot.inflight_requests[snapshot.candidates]
        return rng.choice(snapshot.candidates[load == load.min()])
"""
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a class's body into a file, and return how a user names it."""

    def into(body: str) -> str:
        (tmp_path / "mine.py").write_text(f"class Mine:{body}")
        return f"{tmp_path / 'mine.py'}:Mine"

    return into


def deciding(policy: PythonPolicy, workload: Workload, buffer: np.ndarray) -> PythonPolicy:
    policy.start(workload, buffer, 0)
    return policy


def test_a_name_with_a_file_is_told_from_the_name_of_a_policy() -> None:
    assert [is_python_policy(name) for name in ("a/b.py:Mine", "mine.py", "random")] == [True, True, False]


def test_the_class_sees_every_field_of_every_candidate_and_the_request(write: Write, busy: Workload) -> None:
    body = (
        "\n    def choose(self, request, snapshot, rng):\n        seen.append((request, snapshot)); return 2\nseen = []"
    )
    policy = load_python_policy(write(body))
    buffer = np.arange(30.0).reshape(3, 10)
    buffer[0] = np.nan
    assert deciding(policy, busy, buffer).decide(5) == 2
    ((request, snapshot),) = policy.chooser.choose.__globals__["seen"]
    assert (request.index, request.prompt_tokens, request.arrived_at_s) == (
        5,
        busy.prompt_tokens[5],
        busy.arrived_at_s[5],
    )
    assert request.blocks.tolist() == busy.block_ids[busy.block_offsets[5] : busy.block_offsets[6]].tolist()
    assert snapshot.candidates.tolist() == [1, 2]
    for k, name in enumerate(schema.SNAPSHOT_FIELDS):
        assert np.array_equal(getattr(snapshot, name), buffer[:, k], equal_nan=True)


def test_the_vectors_follow_the_cluster_and_cannot_be_written(write: Write, busy: Workload) -> None:
    policy = load_python_policy(write(LEAST))
    buffer = np.zeros((3, 10))
    deciding(policy, busy, buffer)
    for j in range(3):
        buffer[:, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = 1.0
        buffer[j, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = 0.0
        assert policy.decide(0) == j
    spoils = write("\n    def choose(self, request, snapshot, rng):\n        snapshot.hit_ratio[0] = 1.0")
    with pytest.raises(ConfigError, match="assignment destination is read-only"):
        deciding(load_python_policy(spoils), busy, buffer).decide(0)


def test_each_run_has_a_new_object_and_the_same_draws(write: Write, busy: Workload) -> None:
    body = """
    def __init__(self):
        self.asked = 0
    def choose(self, request, snapshot, rng):
        self.asked += 1
        return int(rng.integers(3)) if self.asked < 9 else 0
"""
    policy = load_python_policy(write(body))
    runs = []
    for each in (policy, policy, policy.fresh()):
        deciding(each, busy, np.zeros((3, 10)))
        runs.append([each.decide(i) for i in range(20)])
    assert runs[0] == runs[1] == runs[2]
    assert len(set(runs[0])) == 3
    assert set(runs[0][8:]) == {0}


def test_a_class_of_the_standard_librarys_kind_works(write: Write, busy: Workload, tmp_path: Path) -> None:
    name = write(LEAST)
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\n"
        f"class Mine:\n    weight: float = 2.0\n{LEAST}"
    )
    assert deciding(load_python_policy(name), busy, np.zeros((1, 10))).decide(0) == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("\n    def chose(self): ...", "has no method choose; expected choose(self, request, snapshot, rng) -> int"),
        ("\n    def choose(self, request): ...", "its method is choose(self, request), too many positional arguments;"),
        ("\n    def choose(self, a, b, c, d): ...", "missing a required argument: 'd'"),
        (
            "\n    def choose(self, a, b, c): ...\n1 / 0",
            "mine.py:3: ZeroDivisionError: division by zero; expected Python",
        ),
        ("\n    def choose(self a): ...", "mine.py:2: SyntaxError: "),
        ("\n    pass\nimport nowhere_at_all", "mine.py:3: ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_with_its_line(body: str, said: str, write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_python_policy(write(body))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_said_with_what_is_there(write: Write, tmp_path: Path) -> None:
    write(LEAST)
    with pytest.raises(ConfigError, match=r"mine\.py: class 'Min' is not known; did you mean 'Mine'\? Known: Mine"):
        load_python_policy(f"{tmp_path / 'mine.py'}:Min")
    with pytest.raises(ConfigError, match="there is no file"):
        load_python_policy(f"{tmp_path / 'other.py'}:Mine")
    with pytest.raises(ConfigError, match=r"names no class; expected FILE\.py:CLASS"):
        load_python_policy(f"{tmp_path / 'mine.py'}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("return 1 / (request.index - 7)", "mine.py:3: ZeroDivisionError: division by zero, choosing for request 7"),
        ("return 1.5", "TypeError: 'float' object cannot be interpreted as an integer, choosing for request 7"),
        ("return None", "TypeError: 'NoneType' object cannot be interpreted as an integer"),
        ("return 3", "choose returned 3 for request 7; expected one of the candidates 0, 2"),
        ("return -1", "choose returned -1 for request 7; expected one of the candidates 0, 2"),
        ("return 1", "choose returned 1 for request 7; expected one of the candidates 0, 2"),
    ],
)
def test_a_mistake_in_a_decision_is_said_in_one_line(line: str, said: str, write: Write, busy: Workload) -> None:
    policy = load_python_policy(write(f"\n    def choose(self, request, snapshot, rng):\n        {line}"))
    buffer = np.zeros((3, 10))
    buffer[1] = np.nan
    with pytest.raises(ConfigError) as caught:
        deciding(policy, busy, buffer).decide(7)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_that_cannot_be_made_is_said_with_its_line(write: Write, busy: Workload) -> None:
    name = write(f"\n    def __init__(self):\n        raise OSError('no table')\n{LEAST}")
    with pytest.raises(ConfigError, match=r"mine\.py:3: OSError: no table, making it"):
        deciding(load_python_policy(name), busy, np.zeros((3, 10)))


def test_a_decision_costs_less_than_ten_microseconds_beside_the_policys_own(write: Write, busy: Workload) -> None:
    policy = load_python_policy(write("\n    def choose(self, request, snapshot, rng):\n        return 0"))
    deciding(policy, busy, np.zeros((8, 10)))
    spent_s = []
    for _ in range(5):
        begun = time.process_time()
        for i in range(600):
            policy.decide(i)
        spent_s.append((time.process_time() - begun) / 600)
    assert min(spent_s) < 10e-6


def test_the_documents_example_is_a_policy_and_names_every_field(tmp_path: Path, busy: Workload) -> None:
    text = Path(__file__).parents[2].joinpath("docs/cluster.md").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(text.split("```python\n")[1].split("```")[0])
    policy = load_python_policy(f"{tmp_path / 'mine.py'}:Pack")
    buffer = np.zeros((3, 10))
    buffer[1, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = 5.0
    assert deciding(policy, busy, buffer).decide(0) == 1
    assert all(f"`{name}`" in text for name in schema.SNAPSHOT_FIELDS)


def test_the_cluster_asks_it_and_it_does_as_well_as_the_compiled_rule(
    write: Write, busy: Workload, slow: EngineModel
) -> None:
    cluster = Cluster.of([slow] * 3, busy)
    policies = {"mine": load_python_policy(write(LEAST)), "compiled": make_policy("least-request")}
    with mapper(2) as both:
        found = replay_all(cluster, policies, range(4), both)
    mine, compiled = (np.mean([np.nanmean(run.ttft_ms) for run in found[name]]) for name in ("mine", "compiled"))
    assert mine == pytest.approx(compiled, rel=0.1)
    assert np.array_equal(found["mine"][2].ttft_ms, replay_all(cluster, policies, [2])["mine"][0].ttft_ms)


def test_metrics_that_are_read_rarely_mislead_a_policy_that_lives_by_them(
    write: Write, busy: Workload, slow: EngineModel
) -> None:
    by_queue = """
    def choose(self, request, snapshot, rng):
        load = snapshot.waiting_requests + snapshot.running_requests
        return int(load.argmin())
"""
    policies = {"mine": load_python_policy(write(by_queue))}
    rows = sweep(
        Cluster.of([slow] * 3, busy), policies, range(2), [parse_sweep("scrape-interval-ms=0,5000")], "mine", "trusted"
    )
    live, stale = (row["ttft_mean_ms"] for row in rows)
    assert stale > 1.2 * live
