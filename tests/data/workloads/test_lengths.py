from __future__ import annotations

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.data.workloads.lengths import (
    Choice,
    Constant,
    Empirical,
    Exponential,
    Geometric,
    Lengths,
    Lognormal,
    Uniform,
)
from lodestar.data.workloads.simulate import no_sources


def drawn(lengths: Lengths, count: int = 400_000) -> np.ndarray:
    return lengths.draw(np.random.default_rng(0), count, no_sources)


@pytest.mark.parametrize(
    "told",
    [
        {"mean": 300.0, "sigma": 1.0},
        {"mean": 300.0, "p50": 150.0},
        {"mean": 300.0, "p99": 2000.0},
        {"p50": 200.0, "p99": 3000.0},
        {"p50": 200.0, "sigma": 0.7},
        {"p99": 3000.0, "sigma": 0.7},
    ],
    ids=" and ".join,
)
def test_a_lognormal_has_what_it_was_told_by(told: dict[str, float]) -> None:
    values = drawn(Lognormal(**told))
    found = {
        "mean": values.mean(),
        "p50": np.median(values),
        "p99": np.quantile(values, 0.99),
        "sigma": np.log(values).std(),
    }
    for name, value in told.items():
        assert found[name] == pytest.approx(value, rel=0.03), name


def test_values_above_the_cap_are_set_to_it() -> None:
    values = drawn(Lognormal(p50=100.0, sigma=1.0, at_most=150.0))
    assert values.max() == 150.0
    assert (values == 150.0).mean() == pytest.approx(0.343, abs=0.01)


def test_choices_come_by_weight() -> None:
    values = drawn(Choice((1.0, 2.0), (3.0, 1.0)))
    assert (values == 1.0).mean() == pytest.approx(0.75, abs=0.01)


def test_uniform_includes_both_ends() -> None:
    values = drawn(Uniform(90, 110))
    assert (values.min(), values.max()) == (90, 110)
    assert values.mean() == pytest.approx(100, abs=0.1)


def test_geometric_and_exponential_have_their_means() -> None:
    assert drawn(Geometric(5.0)).mean() == pytest.approx(5, rel=0.01)
    assert drawn(Geometric(5.0)).min() == 1
    assert drawn(Exponential(5.0)).mean() == pytest.approx(5, rel=0.01)
    assert set(drawn(Constant(7.0))) == {7.0}


def test_empirical_lengths_are_those_of_the_source(azure: Workload) -> None:
    lengths = Empirical("trace", "prompt_tokens", at_most=4000)
    values = lengths.draw(np.random.default_rng(0), 100_000, lambda source: azure)
    assert set(values) <= set(np.minimum(azure.prompt_tokens, 4000).astype(float))
    assert values.mean() == pytest.approx(np.minimum(azure.prompt_tokens, 4000).mean(), rel=0.02)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Lognormal(mean=1.0), "lognormal has mean; expected exactly two of mean, p50, p99, sigma"),
        (lambda: Lognormal(mean=1.0, p50=1.0, p99=2.0), "exactly two"),
        (lambda: Lognormal(), "none of its keys"),
        (lambda: Lognormal(mean=1.0, p50=2.0), "at least the median"),
        (lambda: Lognormal(mean=1.0, p99=100.0), "at most 15.0 times the mean"),
        (lambda: Lognormal(p50=5.0, p99=1.0), "p99 1.0"),
        (lambda: Lognormal(p50=5.0, sigma=-1.0), "sigma -1.0"),
        (lambda: Choice((1.0, 2.0), (1.0,)), "one for each"),
        (lambda: Choice((1.0, 2.0), (0.0, 0.0)), "weights"),
        (lambda: Choice((-1.0,)), "values -1.0"),
        (lambda: Uniform(5, 4), "high 4"),
        (lambda: Geometric(0.5), "mean 0.5"),
        (lambda: Constant(float("nan")), "value nan"),
        (lambda: Empirical("x", "tokens"), "prompt_tokens or output_tokens"),
    ],
)
def test_unusable_values_are_named(make: type[Lengths], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()
