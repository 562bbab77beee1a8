"""Recipes: what can be said, and what each mistake gives."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.data.workloads.measure import facts
from lodestar.data.workloads.presets import preset_names, preset_text
from lodestar.data.workloads.recipe import Recipe, read_recipe, recipe_of, with_rate, with_settings
from lodestar.data.workloads.simulate import simulate

TRACES = ("conversation", "synthetic", "toolagent")


def table(*settings: str, preset: str = "sharing09") -> dict[str, Any]:
    return with_settings(tomllib.loads(preset_text(preset)), settings)


def read(*settings: str, preset: str = "sharing09") -> Recipe:
    return recipe_of(table(*settings, preset=preset))


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_a_recipe_with_a_description(preset: str) -> None:
    recipe = read(*(["trace.source=x"] if preset in TRACES else []), preset=preset)
    assert recipe.description


@pytest.mark.parametrize("preset", sorted(set(preset_names()) - set(TRACES)))
def test_every_preset_makes_a_workload(preset: str) -> None:
    assert len(simulate(read("requests=50", preset=preset), seed=0)) == 50


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("request=5", "recipe: key 'request' is not known; did you mean 'requests'?"),
        ("requests=0", "requests 0 is not usable; expected 1 or more"),
        ("requests=2.5", "requests 2.5 is not usable"),
        ("requests=true", "requests True is not usable"),
        ("duration_s=-1", "duration_s -1 is not usable; expected more than 0"),
        ("duration_s=inf", "duration_s inf is not usable"),
        ("block_tokens=0", "block_tokens 0 is not usable"),
        ("description=5", "description 5 is not usable; expected a text"),
        ("arrivals.process=poison", "arrivals.process 'poison' is not known; did you mean 'poisson'?"),
        ("arrivals=5", "arrivals is 5; expected a table with key 'process'"),
        ("arrivals={}", "arrivals lacks key 'process'; expected one of poisson, gamma"),
        ("arrivals.rate_per_s=fast", "arrivals.rate_per_s is 'fast'; expected a number"),
        ("arrivals.rate_per_s=0", "arrivals: rate_per_s 0.0 is not usable; expected more than 0"),
        ("arrivals.rate_per_s=true", "arrivals.rate_per_s is True; expected a number"),
        ("arrivals.rate=5", "arrivals: key 'rate' is not known; did you mean 'rate_per_s'?"),
        ("arrivals={process='gamma', rate_per_s=1}", "arrivals lacks key 'cv'"),
        (
            "prompt_tokens.distribution=normal",
            "prompt_tokens.distribution 'normal' is not known; did you mean 'lognormal'",
        ),
        ("prompt_tokens.values=[]", "prompt_tokens.values is []; expected a number or a list of numbers"),
        ("prompt_tokens.values=['a']", "prompt_tokens.values is ['a']; expected a number or a list"),
        ("output_tokens.low=1.5", "output_tokens.low is 1.5; expected a whole number"),
        ("output_tokens={distribution='lognormal', mean=5}", "output_tokens: lognormal has mean; expected exactly two"),
        ("prefixes.structure=share", "prefixes.structure 'share' is not known; did you mean 'shared'?"),
        ("prefixes.sharing_ratio=1.5", "prefixes: sharing_ratio 1.5 is not usable; expected 0 to 1"),
        ("prefixes.requests_per_prefix=1", "prefixes: requests_per_prefix 1 is not usable"),
        ("prefixes={structure='sessions', think_s={distribution='constant', value=1}}", "prefixes lacks key 'turns'"),
        ("prefixes={structure='sessions', turns=5, think_s=5}", "prefixes.turns is 5; expected a table"),
        ("phases=5", "phases is 5; expected tables"),
        ("phases=[{}]", "phases.0.share_ratio None is not usable"),
        ("phases=[{share_ratio=0.5}]", "share_ratio of all phases 0.5 is not usable; expected a sum of 1"),
        ("phases=[{share_ratio=1.0, rate=5}]", "phases.0: key 'rate' is not known"),
        ("phases=[{share_ratio=1.0, prefixes={sharing_ratio=2}}]", "phases.0.prefixes: sharing_ratio 2.0"),
        ("phases=[{share_ratio=0.9999}, {share_ratio=0.0001}]", "enough for one or more in every phase"),
        ("trace.source=x", "recipe has both trace and"),
    ],
)
def test_every_mistake_names_its_key(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(setting)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lacking", ["arrivals", "prompt_tokens", "output_tokens"])
def test_a_table_that_lacks_is_named(lacking: str) -> None:
    with pytest.raises(ConfigError, match=f"lacks table '{lacking}'"):
        recipe_of({name: value for name, value in table().items() if name != lacking})


def test_a_recipe_says_how_much_once() -> None:
    with pytest.raises(ConfigError, match="both requests and duration_s"):
        recipe_of({**table(), "duration_s": 5})
    with pytest.raises(ConfigError, match="neither requests nor duration_s"):
        recipe_of({name: value for name, value in table().items() if name != "requests"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["requests"], "--set 'requests' is no setting; expected KEY=VALUE"),
        (["phases.2.share_ratio=1"], "--set phases.2.share_ratio: '2' is none of 0 to 1"),
        (["requests.more=1"], "--set requests.more: 'more' lies in 4000, which is no table"),
    ],
)
def test_settings_that_lead_nowhere_say_so(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(*settings, preset="sharing05-50-shift")
    assert said in str(caught.value)


def test_settings_reach_into_phases_and_leave_the_table_as_it_was() -> None:
    before = table(preset="sharing05-50-shift")
    after = with_settings(before, ["phases.1.prefixes.sharing_ratio=0.7"])
    assert after["phases"][1]["prefixes"]["sharing_ratio"] == 0.7
    assert before["phases"][1]["prefixes"]["sharing_ratio"] == 0.5


def test_one_rate_is_refused_where_phases_have_their_own() -> None:
    assert with_rate(table(), 3.0)["arrivals"]["rate_per_s"] == 3.0
    with pytest.raises(ConfigError, match=r"Set phases\.1\.arrivals\.rate_per_s instead"):
        with_rate(table(preset="rate-shift"), 3.0)


def test_a_phase_that_names_a_kind_replaces_the_whole_table() -> None:
    recipe = read("phases=[{share_ratio=1, arrivals={process='gamma', rate_per_s=2, cv=3}}]")
    assert simulate(recipe, seed=0).arrived_at_s[-1] > 0


def test_phases_of_a_duration_begin_when_the_one_before_ends() -> None:
    phases = "phases=[{share_ratio=0.25, arrivals={rate_per_s=1}}, {share_ratio=0.75, arrivals={rate_per_s=100}}]"
    at_s = simulate(read("duration_s=400", phases), seed=0).arrived_at_s
    assert (at_s < 95).sum() == pytest.approx(95, abs=40)
    assert (at_s > 105).sum() == pytest.approx(29_500, rel=0.05)


@pytest.mark.parametrize("content", [b"requests = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"r\.toml is no TOML"):
        read_recipe(tmp_path / "r.toml")


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_recipe(tmp_path / "r.toml")


def test_a_preset_from_a_trace_says_that_it_needs_one() -> None:
    with pytest.raises(ConfigError, match=r"--set trace\.source=FILE"):
        read(preset="conversation")
    with pytest.raises(ConfigError, match="block_tokens is the trace's own"):
        read("trace.source=x", "block_tokens=16", preset="conversation")
    with pytest.raises(ConfigError, match="key 'window' is not known; did you mean 'window_s'"):
        read("trace.source=x", "trace.window=16", preset="conversation")


def test_the_papers_trace_workload_is_scaled_as_told(mooncake: Workload) -> None:
    made = simulate(read("trace.source=x", preset="conversation"), 0, lambda source: mooncake)
    window = int((mooncake.arrived_at_s < 600).sum())
    assert len(made) == 4 * window
    assert made.block_tokens == 50
    assert made.prompt_tokens.max() <= 10_000
    assert made.prompt_tokens[:window].tolist() == [
        min(tokens * 50 // 512, 10_000) for tokens in mooncake.prompt_tokens[:window].tolist()
    ]
    assert made.output_tokens.mean() == pytest.approx(mooncake.output_tokens[:window].mean() / 2, rel=0.01)
    assert facts(made)["rate_per_s"] == pytest.approx(10, rel=0.05)


def test_a_trace_without_arrivals_keeps_its_own(mooncake: Workload) -> None:
    recipe = recipe_of({"trace": {"source": "x", "from_s": 300.0, "window_s": 60.0, "copies": 2}})
    made = simulate(recipe, 0, lambda source: mooncake)
    own = mooncake.arrived_at_s[(mooncake.arrived_at_s >= 300) & (mooncake.arrived_at_s < 360)]
    assert made.arrived_at_s[: len(own)].tolist() == (own - own[0]).tolist()
    assert made.arrived_at_s[len(own)] == pytest.approx(60.0)


def test_lengths_beyond_all_measure_are_refused() -> None:
    with pytest.raises(ConfigError, match="give the distribution an at_most"):
        simulate(read("prompt_tokens={distribution='lognormal', p50=100, sigma=20}"), seed=0)


def test_more_requests_than_a_trace_has_are_refused(mooncake: Workload) -> None:
    recipe = recipe_of({"requests": 20_000, "trace": {"source": "x"}})
    with pytest.raises(Exception, match="the trace gives 12031 requests, 20000 are wanted"):
        simulate(recipe, 0, lambda source: mooncake)
