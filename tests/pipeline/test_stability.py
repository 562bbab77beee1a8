from __future__ import annotations

import heapq

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.pipeline.replay.stability import queue_growth, requests_in_flight

Floats = NDArray[np.float64]


def served(
    load: float, requests: int, seed: int, squared_variation: float = 1.0, rise: float = 0.0
) -> tuple[Floats, ...]:
    """Arrivals and departures of a queue with eight servers, each of which serves one request a time unit."""
    random = np.random.default_rng(seed)
    rate = 8 * load * (1 + rise * np.linspace(-0.5, 0.5, requests))
    arrived = np.cumsum(random.gamma(1 / squared_variation, squared_variation, requests) / rate)
    free, left = [0.0] * 8, np.empty(requests)
    for i, work in enumerate(random.exponential(1.0, requests)):
        left[i] = max(arrived[i], free[0]) + work
        heapq.heapreplace(free, left[i])
    return arrived, left


def share_called_growing(**queue: float) -> float:
    calls = []
    for seed in range(30):
        arrived, left = served(**queue, requests=2500, seed=seed)  # type: ignore[arg-type]
        growth = queue_growth(arrived, left, from_s=arrived[125])
        calls.append(growth is not None and growth.grows)
    return float(np.mean(calls))


@pytest.mark.parametrize("queue", [{"load": 0.8}, {"load": 0.7, "squared_variation": 9.0}, {"load": 0.55, "rise": 0.8}])
def test_bursts_and_a_rising_load_are_not_called_growth(queue: dict[str, float]) -> None:
    assert share_called_growing(**queue) <= 0.07


def test_a_cluster_that_fills_up_is_not_called_growing() -> None:
    random = np.random.default_rng(4)
    arrived = np.cumsum(random.exponential(0.1, 2500))
    growth = queue_growth(arrived, arrived + random.gamma(4, 20, 2500), from_s=arrived[125])
    assert growth is not None
    assert growth.per_min > 0
    assert not growth.grows


@pytest.mark.parametrize("load", [1.15, 1.5])
def test_more_arrivals_than_can_be_served_are_called_growth(load: float) -> None:
    assert share_called_growing(load=load) >= 0.9


def test_the_queue_grows_by_what_arrives_and_is_not_served() -> None:
    arrived, left = served(load=2.0, requests=5000, seed=1)
    growth = queue_growth(arrived, left, from_s=arrived[250])
    assert growth is not None
    assert growth.per_min == pytest.approx(60 * (16 - 8), rel=0.05)


def test_in_flight_counts_are_those_of_a_clock() -> None:
    arrived, left = served(load=0.9, requests=200, seed=2)
    at = np.linspace(0, arrived[-1], 57)
    expected = [int(((arrived <= time) & (left > time)).sum()) for time in at]
    assert requests_in_flight(arrived, left, at).tolist() == expected


def test_too_few_requests_tell_nothing() -> None:
    arrived = np.arange(99.0)
    assert queue_growth(arrived, arrived * 3, from_s=0.0) is None


def test_requests_that_come_all_at_once_tell_nothing() -> None:
    assert queue_growth(np.zeros(500), np.arange(500.0), from_s=0.0) is None
