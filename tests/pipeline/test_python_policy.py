"""A user's policy in plain Python: found, checked, asked once a decision, and its mistakes said with file and line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from house import ROOT
from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.parallel import AnyPolicy, mapper, replay_all
from lodestar.pipeline.replay.policy_file import is_python_policy, load_python_policy
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.python_policy import SIGNATURE, PythonPolicy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.sweep import sweep
from lodestar.pipeline.replay.sweep_points import parse_sweep

LEAST = """
    def choose(self, request, snapshot, state, rng):
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
    body = """
    def choose(self, request, snapshot, state, rng):
        seen.append((request, snapshot))
        return 2
seen = []
"""
    policy = load_python_policy(write(body))
    buffer = np.arange(30.0).reshape(3, 10)
    buffer[0] = np.nan
    assert deciding(policy, busy, buffer).decide(5) == 2
    assert np.isnan(policy.probability).all()
    ((request, snapshot),) = policy.chooser.choose.__globals__["seen"]
    assert (request.index, request.prompt_tokens, request.now_s) == (
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
    spoils = write("\n    def choose(self, request, snapshot, state, rng):\n        snapshot.hit_ratio[0] = 1.0")
    with pytest.raises(ConfigError, match="assignment destination is read-only"):
        deciding(load_python_policy(spoils), busy, buffer).decide(0)


def test_each_run_has_a_new_object_and_the_same_draws(write: Write, busy: Workload) -> None:
    body = """
    def __init__(self):
        self.asked = 0
    def choose(self, request, snapshot, state, rng):
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
        (
            "\n    def chose(self): ...",
            "Mine has no method choose; expected choose(self, request, snapshot, state, rng) -> int, or",
        ),
        ("\n    def choose(self, request): ...", "its method is choose(self, request), too many positional arguments;"),
        ("\n    def choose(self, a, b, c, d, e): ...", "missing a required argument: 'e'"),
        (
            "\n    def choose(self, a, b, c, d): ...\n1 / 0",
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
    policy = load_python_policy(write(f"\n    def choose(self, request, snapshot, state, rng):\n        {line}"))
    buffer = np.zeros((3, 10))
    buffer[1] = np.nan
    with pytest.raises(ConfigError) as caught:
        deciding(policy, busy, buffer).decide(7)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_it_says_of_probabilities_is_kept_for_that_decision_alone(write: Write, busy: Workload) -> None:
    body = """
    def choose(self, request, snapshot, state, rng):
        return (2, [0.25, 0, 0.75]) if request.index == 7 else 0
"""
    policy = load_python_policy(write(body))
    buffer = np.zeros((3, 10))
    buffer[1] = np.nan
    deciding(policy, busy, buffer)
    assert (policy.decide(6), policy.decide(7)) == (0, 2)
    assert policy.probability.tolist() == [0.25, 0.0, 0.75]
    assert policy.decide(8) == 0
    assert np.isnan(policy.probability).all()


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("0, [1.0, 0.0]", "choose gave probabilities of shape (2,); expected (3,), one for each instance"),
        ("0, [1.5, 0.0, -0.5]", "choose gave instance 2 the probability -0.5; expected 0 or more"),
        ("0, [1.0, 0.0, float('nan')]", "choose gave instance 2 the probability nan; expected 0 or more"),
        ("0, [0.5, 0.0, 0.49999]", "choose gave probabilities that sum to 0.99999; expected 1"),
        ("0, [0.5, 0.5, 0.0]", "choose gave instance 1 the probability 0.5, and it is no candidate; expected 0"),
        ("0, [0.0, 0.0, 1.0]", "choose gave instance 0 the probability 0, and returned it; expected more than 0"),
        ("0, ['a', 'b', 'c']", "ValueError: could not convert string to float: 'a', reading its probabilities for"),
        ("0, [1, 0, 0], 5", "ValueError: too many values to unpack (expected 2), choosing for request 7"),
        ("1, [1, 0, 0]", "choose returned 1 for request 7; expected one of the candidates 0, 2"),
    ],
)
def test_probabilities_that_are_none_are_said_in_one_line(pair: str, said: str, write: Write, busy: Workload) -> None:
    policy = load_python_policy(write(f"\n    def choose(self, request, snapshot, state, rng):\n        return {pair}"))
    buffer = np.zeros((3, 10))
    buffer[1] = np.nan
    with pytest.raises(ConfigError) as caught:
        deciding(policy, busy, buffer).decide(7)
    assert said in str(caught.value)
    assert "request 7" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_state_lasts_a_run_and_no_longer(write: Write, busy: Workload) -> None:
    body = """
    def choose(self, request, snapshot, state, rng):
        state["asked"] = state.get("asked", 0) + 1
        return state["asked"] % 3
"""
    policy = load_python_policy(write(body))
    for _ in range(2):
        deciding(policy, busy, np.zeros((3, 10)))
        assert [policy.decide(i) for i in range(4)] == [1, 2, 0, 1]


def test_the_clock_and_the_candidates_can_come_from_outside(write: Write, busy: Workload) -> None:
    body = """
    def choose(self, request, snapshot, state, rng):
        seen.append((request.now_s, request.session, snapshot.candidates.tolist()))
        return snapshot.candidates[-1]
seen = []
"""
    policy = load_python_policy(write(body))
    clock_s, candidate = np.array([4.5]), np.array([True, True, False])
    policy.start(replace(busy, session=np.arange(len(busy)) // 2), np.full((3, 10), np.nan), 0, clock_s, candidate)
    assert policy.decide(9) == 1
    clock_s[0], candidate[:] = 5.5, [False, True, True]
    assert policy.decide(9) == 2
    assert policy.chooser.choose.__globals__["seen"] == [(4.5, 4, [0, 1]), (5.5, 4, [1, 2])]


def test_a_class_that_cannot_be_made_is_said_with_its_line(write: Write, busy: Workload) -> None:
    name = write(f"\n    def __init__(self):\n        raise OSError('no table')\n{LEAST}")
    with pytest.raises(ConfigError, match=r"mine\.py:3: OSError: no table, making it"):
        deciding(load_python_policy(name), busy, np.zeros((3, 10)))


def test_the_readmes_example_is_a_policy_in_15_lines(tmp_path: Path, busy: Workload) -> None:
    example = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert len(example.splitlines()) <= 15
    (tmp_path / "mine.py").write_text(example)
    policy = load_python_policy(f"{tmp_path / 'mine.py'}:Shortest")
    buffer = np.zeros((3, 10))
    buffer[:, schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)] = [200.0, 300.0, 400.0]
    buffer[2, schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)] = 0.9
    assert deciding(policy, busy, buffer).decide(0) == 2
    assert deciding(load_python_policy(f"{tmp_path / 'mine.py'}:Shortest,trust=0.1"), busy, buffer).decide(0) == 0


def test_the_documents_name_every_field_and_the_method() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (*schema.SNAPSHOT_FIELDS, *SIGNATURE.split(" -> ")[:1]))
    assert all(f"`{name}`" in text for name in ("index", "prompt_tokens", "now_s", "session", "blocks", "candidates"))


def test_the_cluster_asks_it_and_it_does_as_well_as_the_compiled_rule(
    write: Write, busy: Workload, slow: EngineModel
) -> None:
    cluster = Cluster.of([slow] * 3, busy)
    policies: dict[str, AnyPolicy] = {
        "mine": load_python_policy(write(LEAST)),
        "compiled": make_policy("least-request"),
    }
    with mapper(2) as both:
        found = replay_all(cluster, policies, range(4), both)
    mine, compiled = (np.mean([np.nanmean(run.ttft_ms) for run in found[name]]) for name in ("mine", "compiled"))
    assert mine == pytest.approx(compiled, rel=0.1)
    assert np.array_equal(found["mine"][2].ttft_ms, replay_all(cluster, policies, [2])["mine"][0].ttft_ms)


def test_the_log_of_a_replay_has_the_propensities_it_told(write: Write, busy: Workload, slow: EngineModel) -> None:
    body = """
    def choose(self, request, snapshot, state, rng):
        chance = np.array([0.5, 0.3, 0.2])
        return int(rng.choice(3, p=chance)), chance
import numpy as np
"""
    cluster, policy = Cluster.of([slow] * 3, busy.head(60)), load_python_policy(write(body))
    log = recorded_log("told", cluster, policy, cluster.replay(policy, record=True))
    assert log.propensity.tolist() == np.array([0.5, 0.3, 0.2])[log.chosen].tolist()
    assert (log.probability == [0.5, 0.3, 0.2]).all()


def test_metrics_that_are_read_rarely_mislead_a_policy_that_lives_by_them(
    write: Write, busy: Workload, slow: EngineModel
) -> None:
    by_queue = """
    def choose(self, request, snapshot, state, rng):
        load = snapshot.waiting_requests + snapshot.running_requests
        return int(load.argmin())
"""
    policies = {"mine": load_python_policy(write(by_queue))}
    rows = sweep(
        Cluster.of([slow] * 3, busy), policies, range(2), [parse_sweep("scrape-interval-ms=0,5000")], "mine", "trusted"
    )
    live, stale = (row["ttft_mean_ms"] for row in rows)
    assert stale > 1.2 * live
