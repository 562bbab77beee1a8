from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.models.uncertainty.drift import Adwin


def _changes(values: np.ndarray) -> list[int]:
    adwin = Adwin()
    return [i for i, value in enumerate(values) if adwin.update(float(value))]


def _stream(seed: int, ratio: float = 1.3) -> np.ndarray:
    """Log residuals with a heavy tail; from the middle on latencies are `ratio` times as long."""
    values = 0.3 * np.random.default_rng(seed).standard_t(4, 20_000)
    values[10_000:] += math.log(ratio)
    return values


@pytest.mark.parametrize("seed", range(2))
def test_finds_the_same_changes_as_river(seed: int) -> None:
    drift = pytest.importorskip("river.drift", reason="river is not installed; it is a second opinion only")
    theirs, found, adwin = drift.ADWIN(delta=0.002), [], Adwin()
    ours = []
    for i, value in enumerate(_stream(seed)):
        theirs.update(float(value))
        if theirs.drift_detected:
            found.append(i)
        if adwin.update(float(value)):
            ours.append(i)
            adwin = Adwin()  # river starts anew after each change
    assert found
    assert ours == found


def test_no_false_alarm_in_20_000_and_a_slowdown_of_30_percent_is_found_within_300_rows() -> None:
    for seed in range(3):
        assert _changes(_stream(seed, ratio=1.0)) == []
        changes = _changes(_stream(seed))
        assert 10_000 <= changes[0] < 10_300


def test_window_forgets_what_was_before_the_change() -> None:
    adwin = Adwin()
    for value in _stream(0):
        adwin.update(float(value))
    assert 9_000 < adwin.width <= 10_300
    assert adwin.mean == pytest.approx(math.log(1.3), abs=0.02)


def test_sums_of_the_window_are_exact_and_few() -> None:
    values, adwin = np.random.default_rng(5).normal(size=5_000), Adwin()
    for value in values:
        adwin.update(float(value))
    kept = values[-adwin.width :]
    assert adwin.mean == pytest.approx(kept.mean())
    between = sum(s * (t / s - adwin.mean) ** 2 for s, t in zip(adwin.sizes, adwin.totals, strict=True))
    assert (sum(adwin.squares) + between) / adwin.width == pytest.approx(kept.var())
    assert len(adwin.sizes) <= 6 * math.log2(len(values))


def test_goes_on_from_json_where_it_stopped() -> None:
    values = _stream(1)[9_000:11_000]
    adwin, other = Adwin(), Adwin()
    for value in values[:1_000]:
        adwin.update(float(value))
        other.update(float(value))
    other = Adwin(**json.loads(json.dumps(other.to_dict())))
    assert [adwin.update(float(v)) for v in values[1_000:]] == [other.update(float(v)) for v in values[1_000:]]
    assert adwin == other
    assert adwin.changes >= 1


def test_an_error_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="error nan cannot be watched"):
        Adwin().update(math.nan)
