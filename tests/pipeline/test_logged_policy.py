"""What a log says of its policy is believed as far as its propensities allow, and never runs or opens anything."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.judging import judged, logging_policy
from lodestar.pipeline.replay.logged_policy import could_have_given, named_policy
from lodestar.pipeline.replay.parallel import SERIAL
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import Names, recorded_log
from lodestar.pipeline.replay.routing.contract import NOTHING

EXPLORING = "epsilon:least-request,epsilon=0.3"


@cache
def cluster() -> Cluster:
    return Cluster.of([EngineModel()] * 4, sharing_workload(200, rate_per_s=10.0, sharing_ratio=0.3, seed=4))


@cache
def recorded(policy: str) -> RequestLog:
    outcome = cluster().replay(make_policy(policy), seed=1, record=True)
    return recorded_log("made", cluster(), make_policy(policy), outcome, names=Names(policy=policy))


@pytest.mark.parametrize(
    "text", ["random", EXPLORING, "softmax:lmetric,temperature=0.5", "least-kv-cache,ties=last", "power-of-two"]
)
def test_a_recorded_log_names_the_policy_that_made_it(text: str) -> None:
    log = recorded(text)
    assert logging_policy(log, log.propensity) == make_policy(text)


@pytest.mark.parametrize("policy", ["random", "round-robin", "least-request", "power-of-two", "least-kv-cache"])
def test_a_policy_could_have_given_its_own_propensities(policy: str) -> None:
    for text in (policy, f"epsilon:{policy},epsilon=0.3", f"epsilon:{policy},epsilon=1"):
        assert could_have_given(make_policy(text), recorded(text)), text


def test_a_name_whose_policy_cannot_have_given_the_propensities_is_not_believed() -> None:
    log = recorded(EXPLORING)
    for text in ("epsilon:least-request", "epsilon:least-request,epsilon=0.5", "least-request"):
        assert logging_policy(replace(log, policy=text), log.propensity) is None, text
    uniform = replace(recorded("random"), policy="least-kv-cache,ties=last")
    assert logging_policy(uniform, uniform.propensity) == RandomChoice()


@pytest.mark.parametrize(("text", "believed"), [(EXPLORING, True), ("epsilon:least-request", False)])
def test_the_verdict_judges_by_the_named_policy_or_says_why_not(text: str, believed: bool, tmp_path: Path) -> None:
    log, workspace = replace(recorded(EXPLORING), policy=text), Workspace.open(tmp_path)
    trust = judged(workspace, log, cluster(), False, [], log.propensity, {}, SERIAL)
    assert any(gate.name == "free_run_ttft_mean_error" for gate in trust.gates) == believed
    assert any(note.startswith(f"the log names {text}, which cannot have given") for note in trust.notes) != believed


def test_propensities_that_are_rounded_or_not_logged_speak_against_no_name() -> None:
    log = recorded(EXPLORING)
    rounded = replace(log, propensity=np.round(log.propensity, 3))
    assert logging_policy(rounded, rounded.propensity) == make_policy(EXPLORING)
    silent = replace(log, propensity=np.full(len(log), np.nan))
    assert logging_policy(silent, silent.propensity) == make_policy(EXPLORING)


@pytest.mark.parametrize("text", ["prefix", "rl", "", "learned", "oracle-ttft", "lodestar-online", "epsilon:learned"])
def test_what_is_not_ours_or_asks_a_model_is_not_known(text: str) -> None:
    assert named_policy(text) is None


@pytest.mark.parametrize("text", ["random,", "random,seed=1", "epsilon:random,epsilon=2", "epsilon:epsilon:random"])
def test_a_name_that_cannot_be_read_is_not_known(text: str) -> None:
    assert named_policy(text) is None


@pytest.mark.parametrize("text", ["mooncake,speeds=1:1:2", "epsilon:mooncake,speeds=1:1,epsilon=0.1"])
def test_a_name_that_is_set_for_other_instances_is_not_believed(text: str, tmp_path: Path) -> None:
    log = replace(recorded("least-request"), policy=text)
    assert logging_policy(log, log.propensity) is None
    judged(Workspace.open(tmp_path), log, cluster(), False, [], log.propensity, {}, SERIAL)
    fitting = f"{text.partition('speeds=')[0]}speeds=1:1:2:1"
    assert named_policy(fitting, len(log.instances)) == make_policy(fitting)


def test_every_policy_that_can_be_named_can_be_asked_for_the_instances_of_a_log() -> None:
    ours = [policy.name for policy in POLICIES if policy.predictor == NOTHING]
    assert [name for name in ours if named_policy(name, 2) is None] == []


def test_no_name_makes_a_file_run(tmp_path: Path) -> None:
    file, ran = tmp_path / "evil.py", tmp_path / "ran"
    file.write_text(f"open({str(ran)!r}, 'w')\nclass Mine:\n    def choose(self, a, b, c, d): return 0\n")
    bare = tmp_path / "evil"
    bare.write_text(file.read_text())
    for text in (f"{file}:Mine", f"epsilon:{file}:Mine,epsilon=0.1", f"{bare}:Mine.py,a=1", f"epsilon:{bare}:x.py,a=1"):
        log = replace(recorded("least-request"), policy=text)
        assert logging_policy(log, log.propensity) is None, text
    assert not ran.exists()
