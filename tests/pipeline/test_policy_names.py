"""What a user writes behind --policy: names, settings, wrappers, files, and other packages' policies."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
from lodestar.pipeline.replay.policies.least_request import LeastRequest
from lodestar.pipeline.replay.policies.lodestar import Lodestar
from lodestar.pipeline.replay.policies.power_of_two import PowerOfTwo
from lodestar.pipeline.replay.policy_names import find_policy, make_policy, wants_models
from lodestar.pipeline.replay.policy_plugins import plugin_rows
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState
from lodestar.pipeline.replay.routing.wrapped import Wrapped

COMPILED = """
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lodestar.pipeline.replay.routing.compiled import Parameters, rule_function
from lodestar.pipeline.replay.routing.contract import Policy


@rule_function
def _rule(request, snapshot, predicted_ms, candidates, prefixes, memory, parameters, cost):
    for j in candidates:
        cost[j] = abs(j - parameters.values[0])


@dataclass(frozen=True, slots=True)
class Nearest(Policy):
    place: float = 1.0
    name: ClassVar[str] = "nearest"
    rule: ClassVar = _rule

    def parameters(self, fleet):
        return Parameters.of(self.place)
"""
PLAIN = """
class Second:
    def __init__(self, weight: float = 0.5, label="x", deep: bool = False, times: int | None = 3):
        self.settings = (weight, label, deep, times)

    def choose(self, request, snapshot, state, rng):
        return snapshot.candidates[1]
"""


def fleet(instances: int = 4) -> Fleet:
    return Fleet([f"pod-{j}" for j in range(instances)])


def chances(text: str, inflight: list[float]) -> list[float]:
    """Ask a policy about a snapshot of which only the requests in flight are not 0."""
    snapshot = np.zeros((len(inflight), len(schema.SNAPSHOT_FIELDS)))
    snapshot[:, schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)] = inflight
    state = PolicyState(make_policy(text), fleet(len(inflight)))
    return [float(value) for value in state.decide(state.request(0.0, 100), snapshot)[1]]


def test_settings_come_behind_the_name() -> None:
    assert find_policy("aibrix-prefix-cache,deviations=2,imbalance_requests=16") == AibrixPrefixCache(16.0, 2.0)
    assert find_policy("aibrix-prefix-cache, deviations = inf") == AibrixPrefixCache(deviations=float("inf"))
    assert find_policy("aibrix-prefix-cache") == AibrixPrefixCache()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("least-requests", "policy 'least-requests' is not known; did you mean 'least-request'? Known: "),
        ("softmx:NAME", "did you mean 'softmax:NAME'?"),
        ("epsilon:least-requests", "policy 'least-requests' is not known; did you mean 'least-request'?"),
        (
            "aibrix-prefix-cache,deviation=2",
            "policy aibrix-prefix-cache: setting 'deviation' is not known; did you mean 'deviations'? "
            "Known: deviations, imbalance_requests",
        ),
        ("least-request,deviations=2", "policy least-request: setting 'deviations' is not known; Known: none"),
        ("learned,models=3", "policy learned: setting 'models' is not known"),
        ("aibrix-prefix-cache,deviations", "'deviations' is no setting; expected NAME,key=value,key=value"),
        ("aibrix-prefix-cache,deviations=", "'deviations=' is no setting; expected NAME,key=value"),
        ("aibrix-prefix-cache,deviations=1,deviations=2", "deviations is set twice; expected each setting once"),
        ("aibrix-prefix-cache,deviations=two", "policy aibrix-prefix-cache: deviations is 'two'; expected a number."),
        ("aibrix-prefix-cache,deviations=nan", "deviations is 'nan'; expected a number."),
        ("aibrix-prefix-cache,imbalance_requests=1.5", "imbalance_requests is '1.5'; expected a whole number."),
        (
            "learned",
            "policy 'learned' needs a latency model and this dataset has none; expected trained models. Run lod",
        ),
        (
            "aibrix-prefix-cache,imbalance_requests=-4",
            "policy aibrix-prefix-cache: imbalance_requests is -4; expected 0 or",
        ),
        ("sglang-cache-aware,cache_threshold=3", "policy sglang-cache-aware: cache_threshold is 3; expected 0 to 1"),
        ("dynamo-kv,temperature=-1", "policy dynamo-kv: temperature is -1; expected 0 or more"),
        ("preble,window_minutes=0", "policy preble: window_minutes is 0; expected above 0"),
        ("epsilon:learned", "policy 'learned' needs a latency model and this dataset has none"),
        ("epsilon:least-request,epsilon=0", "epsilon:least-request: epsilon is 0; expected above 0 and at most 1"),
        ("softmax:least-request,temperature=-1", "softmax:least-request: temperature is -1; expected above 0"),
        ("softmax:least-request,epsilon=0.1", "policy least-request: setting 'epsilon' is not known"),
        ("epsilon:softmax:least-request", "epsilon:softmax:least-request: a wrapper wraps another; expected one"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_policy(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_epsilon_spreads_a_share_over_all_candidates() -> None:
    assert chances("epsilon:least-request,epsilon=0.2", [3, 1, 2, 5]) == pytest.approx([0.05, 0.85, 0.05, 0.05])
    assert find_policy("epsilon:least-request") == Wrapped(LeastRequest(), "epsilon", 0.1)


def test_epsilon_adds_to_what_the_policy_explores_by_itself() -> None:
    assert Wrapped(Lodestar(exploration=0.5), "epsilon", 0.2).pick().epsilon == pytest.approx(0.6)


def test_softmax_weighs_by_the_cost_from_the_lowest_to_the_highest() -> None:
    weights = np.exp(-np.array([0.5, 0.0, 0.25, 1.0]) / 0.3)
    expected = weights / weights.sum()
    assert chances("softmax:least-request,temperature=0.3", [3, 1, 2, 5]) == pytest.approx(expected.tolist())


def test_softmax_of_weights_prefers_the_heaviest_and_is_no_longer_their_share() -> None:
    weighted, softened = chances("power-of-two", [3, 1, 2, 5]), chances("softmax:power-of-two", [3, 1, 2, 5])
    sharper = np.exp(np.array(weighted) / (0.5 * 0.1))  # the weights lie between 0 and 0.5
    assert PowerOfTwo().pick().weighted
    assert weighted == pytest.approx([1 / 6, 1 / 2, 1 / 3, 0.0])
    assert softened == pytest.approx((sharper / sharper.sum()).tolist())


def test_a_wrapper_keeps_all_but_the_pick() -> None:
    inner = AibrixPrefixCache(16.0)
    wrapped = find_policy("epsilon:aibrix-prefix-cache,imbalance_requests=16,epsilon=0.5")
    assert isinstance(wrapped, Wrapped)
    assert wrapped.name == "epsilon:aibrix-prefix-cache"
    for same in ("fields", "rule", "notice", "memory", "predictor", "needs_engines", "predictors"):
        assert getattr(wrapped, same) is getattr(inner, same), same
    assert wrapped.parameters(fleet()).values.tolist() == inner.parameters(fleet()).values.tolist()


def test_a_class_in_a_file_takes_settings_by_the_types_it_declares(tmp_path: Path) -> None:
    (tmp_path / "a,b.py").write_text(PLAIN)
    name = f"{tmp_path / 'a,b.py'}:Second"
    policy = find_policy(f"{name},weight=2,label=7,deep=true,times=none")
    assert isinstance(policy, PythonPolicy)
    assert policy.name == "a,b.py:Second"
    assert policy.settings == {"weight": 2.0, "label": "7", "deep": True, "times": None}
    for setting, said in (
        ("weight=high", "weight is 'high'; expected a number"),
        ("deep=1", "deep is '1'; expected true or false"),
        ("times=2.5", "times is '2.5'; expected a whole number or none"),
        ("wait=1", "setting 'wait' is not known; did you mean 'weight'? Known: deep, label, times, weight"),
    ):
        with pytest.raises(ConfigError) as caught:
            find_policy(f"{name},{setting}")
        assert said in str(caught.value)
    with pytest.raises(ConfigError, match=r"epsilon:a,b\.py:Second wraps a policy in plain Python"):
        find_policy(f"epsilon:{name}")
    with pytest.raises(ConfigError, match="is in plain Python; expected a compiled one"):
        make_policy(name)


def test_a_setting_without_a_default_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLAIN.replace("weight: float = 0.5", "weight: float"))
    with pytest.raises(
        ConfigError, match=r"policy mine\.py:Second needs weight; expected mine\.py:Second,weight=VALUE"
    ):
        find_policy(f"{tmp_path / 'mine.py'}:Second")


def test_a_compiled_policy_in_a_file_is_one_like_ours(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text(COMPILED)
    name = f"{tmp_path / 'near.py'}:Nearest"
    assert chances(f"{name},place=2", [0, 0, 0, 0]) == [0.0, 0.0, 1.0, 0.0]
    assert chances(f"epsilon:{name},epsilon=0.4", [0, 0, 0, 0]) == pytest.approx([0.1, 0.7, 0.1, 0.1])
    with pytest.raises(ConfigError, match="setting 'plaice' is not known; did you mean 'place'"):
        find_policy(f"{name},plaice=2")
    (tmp_path / "near.py").write_text(COMPILED.replace('name: ClassVar[str] = "nearest"', ""))
    with pytest.raises(ConfigError, match="Nearest has no name; expected both"):
        find_policy(name)
    (tmp_path / "near.py").write_text(COMPILED.replace("for j in candidates:", "for j in [str(cost)]:"))
    with pytest.raises(ConfigError, match=r"near.py does not compile \(.*\); expected scalars"):
        find_policy(name)
    assert not wants_models(name)
    (tmp_path / "near.py").write_text(COMPILED + "    predictor: ClassVar[int] = 1\n")
    assert wants_models(name)


def install(site: Path, package: str, declared: str, source: str) -> None:
    """Put a distribution where an installer would."""
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").write_text("")
    (site / package / "routing.py").write_text(source)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lodestar.policies]\n{declared}\n")


def test_an_installed_package_offers_policies_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = (
        "second = shop.routing:Second\nnearest = shop.routing:Nearest\nrandom = shop.routing:Second\n"
        "gone = shop.routing:Gone\nnumber = shop.routing:NUMBER"
    )
    install(tmp_path, "shop", declared, f"{COMPILED}\n{PLAIN}\nNUMBER = 3\n")
    install(tmp_path, "mall", "twice = mall.routing:Second", PLAIN)
    install(tmp_path, "plaza", "twice = plaza.routing:Second", PLAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    second = find_policy("second,weight=1")
    assert isinstance(second, PythonPolicy)
    assert (second.name, second.settings, second.file) == ("second", {"weight": 1.0}, tmp_path / "shop" / "routing.py")
    assert chances("nearest,place=3", [0, 0, 0, 0]) == [0.0, 0.0, 0.0, 1.0]
    assert chances("epsilon:nearest,epsilon=1", [0, 0]) == [0.5, 0.5]
    assert chances("random", [5, 0]) == [0.5, 0.5]  # ours stays ours
    assert [row["rule"] for row in plugin_rows() if row["policy"] == "nearest"] == ["shop.routing:Nearest of shop"]
    for name, said in (
        ("gone", "policy 'gone' of shop is declared as shop.routing:Gone: AttributeError: "),
        ("number", "policy 'number' of shop is declared as shop.routing:NUMBER, which is no class"),
        ("twice", "policy 'twice' is mall.routing:Second of mall, plaza.routing:Second of plaza; expected one"),
        ("secnd", "policy 'secnd' is not known; did you mean 'second'?"),
    ):
        with pytest.raises(ConfigError) as caught:
            find_policy(name)
        assert said in str(caught.value)
    for module in [name for name in sys.modules if name.split(".")[0] in ("shop", "mall", "plaza")]:
        del sys.modules[module]
