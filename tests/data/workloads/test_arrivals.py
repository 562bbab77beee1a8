from __future__ import annotations

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.workloads.arrivals import PROCESSES, Bursts, Diurnal, Gamma, Limit, Poisson, Process, Starts

MANY = 200_000
EVERY: dict[str, Process] = {
    "poisson": Poisson(5.0),
    "gamma": Gamma(5.0, cv=2.0),
    "diurnal": Diurnal(5.0, swing_ratio=0.8, period_s=200.0),
    "bursts": Bursts(5.0, burst_factor=6.0, calm_s=8.0, burst_s=2.0),
}


def times(process: Process, count: int = MANY, seed: int = 0) -> np.ndarray:
    return Starts(process, np.random.default_rng(seed)).take(count)


def test_every_process_is_tested() -> None:
    assert set(EVERY) == set(PROCESSES)


@pytest.mark.parametrize("process", EVERY.values(), ids=EVERY)
def test_the_mean_rate_is_the_one_asked_for(process: Process) -> None:
    at_s = times(process)
    assert MANY / at_s[-1] == pytest.approx(5.0, rel=0.03)


@pytest.mark.parametrize("process", EVERY.values(), ids=EVERY)
def test_arrivals_rise_and_begin_after_zero(process: Process) -> None:
    at_s = times(process)
    assert at_s[0] > 0
    assert (np.diff(at_s) >= 0).all()


@pytest.mark.parametrize("process", EVERY.values(), ids=EVERY)
def test_the_first_arrivals_do_not_depend_on_how_many_are_wanted(process: Process) -> None:
    few, many = times(process, 100), times(process, 50_000)
    assert few.tolist() == many[:100].tolist()
    starts = Starts(process, np.random.default_rng(0))
    assert [*starts.take(60), *starts.take(40)] == few.tolist()


@pytest.mark.parametrize("process", EVERY.values(), ids=EVERY)
def test_a_duration_gives_all_arrivals_before_its_end(process: Process) -> None:
    at_s = Starts(process, np.random.default_rng(0)).first(Limit(duration_s=500.0))
    every = times(process, 20_000)
    assert at_s.tolist() == every[every < 500.0].tolist()


def test_poisson_gaps_are_independent_with_a_coefficient_of_variation_of_one() -> None:
    gaps = np.diff(times(Poisson(5.0)))
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.01)
    assert np.corrcoef(gaps[1:], gaps[:-1])[0, 1] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0, 4.0])
def test_gamma_gaps_have_the_coefficient_of_variation_asked_for(cv: float) -> None:
    gaps = np.diff(times(Gamma(5.0, cv)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_the_diurnal_rate_follows_its_curve() -> None:
    process = Diurnal(5.0, swing_ratio=0.8, period_s=200.0, peak_at_s=50.0)
    at_s = times(process)
    periods = int(at_s[-1] // 200.0)
    phase = at_s[at_s < periods * 200.0] % 200.0
    counts, edges = np.histogram(phase, bins=40, range=(0, 200.0))
    expected = process.rate_at((edges[1:] + edges[:-1]) / 2) * 5.0 * periods
    # Poisson counts: a chi-square per bin of about 1.
    assert ((counts - expected) ** 2 / expected).mean() < 1.8
    assert edges[counts.argmax()] == pytest.approx(50.0, abs=20.0)


def test_bursts_have_the_dispersion_of_a_markov_modulated_poisson_process() -> None:
    """Heffes and Lucantoni (1986): IDC(∞) = 1 + 2 s1 s2 (r1 − r2)² / ((s1 + s2)² (r1 s2 + r2 s1))."""
    process = EVERY["bursts"]
    assert isinstance(process, Bursts)
    leave_calm, leave_burst = 1 / process.calm_s, 1 / process.burst_s
    calm = process.calm_rate_per_s
    burst = process.burst_factor * calm
    spread = 2 * leave_calm * leave_burst * (calm - burst) ** 2
    expected = 1 + spread / ((leave_calm + leave_burst) ** 2 * (calm * leave_burst + burst * leave_calm))
    at_s = times(process, 1_000_000)
    counts = np.bincount((at_s // 200.0).astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(expected, rel=0.15)


def test_bursts_begin_in_either_state_as_often_as_they_are_in_it() -> None:
    process = Bursts(10.0, burst_factor=50.0, calm_s=30.0, burst_s=10.0)
    early = [len(Starts(process, np.random.default_rng(seed)).until(0.5)) > 3 for seed in range(400)]
    assert np.mean(early) == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (Poisson, {"rate_per_s": 0.0}, "rate_per_s 0.0"),
        (Poisson, {"rate_per_s": float("nan")}, "rate_per_s nan"),
        (Gamma, {"rate_per_s": 1.0, "cv": 0.0}, "cv 0.0"),
        (Diurnal, {"rate_per_s": 1.0, "swing_ratio": 1.5}, "swing_ratio 1.5"),
        (Diurnal, {"rate_per_s": 1.0, "swing_ratio": 0.5, "period_s": 0.0}, "period_s 0.0"),
        (Bursts, {"rate_per_s": 1.0, "burst_factor": 0.5, "calm_s": 1.0, "burst_s": 1.0}, "burst_factor 0.5"),
        (Bursts, {"rate_per_s": 1.0, "burst_factor": 5.0, "calm_s": -1.0, "burst_s": 1.0}, "calm_s -1.0"),
    ],
)
def test_unusable_values_are_named(kind: type[Process], wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        kind(**wrong)
