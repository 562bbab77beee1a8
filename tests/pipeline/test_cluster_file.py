"""Cluster files: what they say, what they refuse, and that a cluster written out reads back the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data.errors import ConfigError
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster_file import cluster_spec, described_cluster, read_cluster_file
from lodestar.pipeline.replay.cluster_spec import ClusterSpec, InstanceSpec
from lodestar.pipeline.replay.events import Event
from lodestar.pipeline.replay.view import RouterView

WHOLE = """
on_failure = "lose"

[[instance]]
count = 2

[[instance]]
engine = "a100-llama-3.1-8b"
prefix_caching = false
block_tokens = 32
slowed = 1.5

[[event]]
at_s = 60
kind = "slow"
instance = 2
factor = 2.5

[view]
preset = "llm-d"
scrape_interval_ms = 200
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def into(text: str) -> Path:
        path = tmp_path / "fleet.toml"
        path.write_text(text)
        return path

    return into


def test_a_file_says_instances_events_and_view(write: Write) -> None:
    spec = read_cluster_file(write(WHOLE))
    assert spec.size == 3
    assert spec.on_failure == "lose"
    assert spec.events == (Event(60.0, "slow", 2, 2.5),)
    assert spec.view == dataclasses.replace(RouterView.preset("llm-d"), scrape_interval_ms=200.0)


def test_fitted_instances_are_the_logs_own_and_others_their_preset_with_what_differs(write: Write) -> None:
    fitted = EngineModel(decode_base_ms=7.0)
    first, second, third = read_cluster_file(write(WHOLE)).engines([fitted], 3)
    assert first == second == fitted
    preset = EngineModel.preset("a100-llama-3.1-8b")
    assert third == dataclasses.replace(preset.slowed(1.5), prefix_caching=False, block_tokens=32)


def test_slowed_comes_after_a_coefficient_that_is_named() -> None:
    spec = InstanceSpec(slowed=2.0, settings=(("decode_base_ms", 5.0),))
    assert spec.of(EngineModel()).decode_base_ms == 10.0


def test_without_instances_there_are_as_many_as_asked_for_fitted_in_turn() -> None:
    fast, slow = EngineModel(), EngineModel().slowed(2.0)
    assert ClusterSpec().engines([fast, slow], 3) == [fast, slow, fast]


def test_an_instance_with_an_engine_of_its_own_keeps_its_place_in_the_log() -> None:
    fitted = [EngineModel(decode_base_ms=float(j)) for j in range(3)]
    spec = cluster_spec({"instance": [{}, {"engine": "h100-llama-3.1-8b"}, {}]})
    assert [engine.decode_base_ms for engine in spec.engines(fitted, 3)][::2] == [0.0, 2.0]


def test_another_number_of_instances_than_the_file_names_is_refused() -> None:
    spec = cluster_spec({"instance": [{"count": 4}]}, "fleet.toml")
    with pytest.raises(ConfigError, match=r"fleet\.toml names 4 instances, and 8 are asked for"):
        spec.engines([EngineModel()], 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instances = 3", "fleet.toml: key 'instances' is not known; did you mean 'instance'?"),
        (
            "[[instance]]\nprefix_cachin = false",
            "[[instance]] #1: key 'prefix_cachin' is not known; did you mean 'pref",
        ),
        ("[[instance]]\n[[instance]]\nengine = 'h100'", "[[instance]] #2: engine preset 'h100' is not known;"),
        ("[[instance]]\nblock_tokens = 1.5", "[[instance]] #1.block_tokens is 1.5; expected a whole number"),
        ("[[instance]]\nprefix_caching = 1", "[[instance]] #1.prefix_caching is 1; expected true or false"),
        ("[[instance]]\nblock_tokens = 0", "[[instance]] #1: engine block_tokens is 0; expected at least 1"),
        ("[[instance]]\nslowed = inf", "[[instance]] #1.slowed is inf; expected a finite number"),
        ("[[instance]]\ncount = 0", "[[instance]] #1 has count 0"),
        ("[[instance]]\nscheduling = 'lifo'", "[[instance]] #1: engine scheduling 'lifo' is not known"),
        ("[instance]\ncount = 1", "expected tables. Write each as [[instance]]"),
        (
            "[[event]]\nat_s = 1\nkind = 'fial'\ninstance = 0",
            "[[event]] #1: event 'fial' is not known; did you mean 'fail'",
        ),
        ("[[event]]\nat_s = 1\nkind = 'fail'", "[[event]] #1 lacks key 'instance'"),
        ("[[event]]\nat_s = nan\nkind = 'fail'\ninstance = 0", "[[event]] #1.at_s is nan; expected a finite number"),
        ("[[instance]]\n[[event]]\nat_s = 1\nkind = 'fail'\ninstance = 1", "names instance 1; expected less than 1"),
        ("on_failure = 'rety'", "on_failure 'rety' is not known; did you mean 'retry'?"),
        ("[view]\npreset = 'abrix'", "[view]: router view 'abrix' is not known; did you mean 'aibrix'?"),
        ("[view]\nscrape_ms = 1", "[view]: key 'scrape_ms' is not known"),
        ("[view]\nindex_block_tokens = 0", "[view]: view index_block_tokens is 0; expected at least 1"),
        ("[[instance]\n", "no TOML"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line_with_file_and_table(text: str, said: str, write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        read_cluster_file(write(text))
    assert said in str(caught.value)
    assert "fleet.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file or directory; expected a cluster file\. Check --cluster"):
        read_cluster_file(tmp_path / "none.toml")


def test_the_command_line_comes_on_top_of_the_file(write: Write) -> None:
    spec = described_cluster(write(WHOLE), "aibrix", ["fail:0@120"], "retry")
    assert spec.view == RouterView.preset("aibrix")
    assert spec.events == (Event(60.0, "slow", 2, 2.5), Event(120.0, "fail", 0))
    assert spec.on_failure == "retry"
    with pytest.raises(ConfigError, match="event fail:3@1 names instance 3"):
        described_cluster(write(WHOLE), None, ["fail:3@1"])


def test_what_nobody_says_stays_unsaid() -> None:
    assert described_cluster(None, None) == ClusterSpec()
    assert ClusterSpec().to_dict() == {"on_failure": "retry"}


engines = st.builds(
    EngineModel,
    decode_base_ms=st.floats(0, 100),
    kv_capacity_tokens=st.integers(1, 10**7),
    prefix_caching=st.booleans(),
    scheduling=st.sampled_from(["fcfs", "priority"]),
)
events = st.builds(Event, st.floats(0, 1e6), st.sampled_from(["fail", "join", "slow"]), st.just(0), st.floats(0.1, 10))


@given(st.lists(engines, min_size=1, max_size=4), st.lists(events, max_size=3), st.sampled_from(["live", "aibrix"]))
def test_a_cluster_written_out_reads_back_the_same(models: list[EngineModel], changes: list[Event], view: str) -> None:
    spec = ClusterSpec.of(models, RouterView.preset(view), changes, "lose")
    again = cluster_spec(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.engines([EngineModel().slowed(9.0)], len(models)) == models


def test_the_documents_example_is_a_cluster_file(write: Write) -> None:
    text = Path(__file__).parents[2].joinpath("docs/cluster.md").read_text(encoding="utf-8")
    spec = read_cluster_file(write(text.split("```toml\n")[1].split("```")[0]))
    assert spec.size == 8
    assert spec.engines([EngineModel()], 8)[7].block_tokens == 32
