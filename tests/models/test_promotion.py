from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import lightgbm as lgb
import numpy as np
import pytest

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.registry.gate_evidence import Evidence
from lodestar.models.registry.promotion import Check, Verdict, golden_check, judge
from lodestar.models.rows import Rows
from lodestar.models.slices import SLICES

N = 1200
GOLDEN = Check("golden", True, "")
RANGES: dict[str, list[float] | None] = {name: [0.0, 9000.0] for name in FEATURE_NAMES}


def evidence(n: int = N, seed: int = 0, champion: bool = True, short: float = 1.0, covers: float = 0.9) -> Evidence:
    """A challenger that is off by 5 %, rivals by 20 %, and a P90 that covers a given share.

    `short` scales the challenger's predictions where six or more requests wait.
    """
    rng = np.random.default_rng(seed)
    measured_ms = rng.uniform(100, 1000, n)
    slices = rng.integers(0, 4, n)
    off = {name: measured_ms * (1 + rng.normal(0, 0.2, n)) for name in ("champion", "constant", "linear")}
    challenger = measured_ms * (1 + rng.normal(0, 0.05, n)) * np.where(slices == 3, short, 1.0)
    missed = np.floor(np.arange(n) * (1 - covers)) != np.floor((np.arange(n) + 1) * (1 - covers))
    p90 = np.where(missed, measured_ms * 0.9, measured_ms * 1.2)
    quantiles = np.stack([p90 / 2, p90, p90 * 2], axis=1)
    predicted = off | {"challenger": challenger}
    if not champion:
        del predicted["champion"]
    return Evidence(measured_ms, np.zeros(n, dtype=np.bool_), slices, predicted, quantiles)


@pytest.fixture(scope="module")
def gate_model(make_rows: Callable[..., Rows]) -> LatencyModel:
    return fit(make_rows(300), "ttft_ms", Parameters(rounds=5, min_data_in_leaf=20), 0)[0]


def checks_of(verdict: Verdict) -> dict[str, Check]:
    return {check.name: check for check in verdict.checks}


def failed(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks if check.passed is False}


def test_what_beats_everyone_and_is_honest_is_promoted_with_all_its_numbers() -> None:
    verdict = judge(evidence(), GOLDEN)
    assert verdict.promoted
    slices = {f"coverage.{name}" for name in SLICES[:4]}
    assert set(checks_of(verdict)) == {"champion", "constant", "linear", "coverage", "saturation", "golden"} | slices
    gain = checks_of(verdict)["champion"]
    assert verdict.mae_ms is not None
    assert gain.value == pytest.approx(verdict.mae_ms["champion"] - verdict.mae_ms["challenger"])
    assert gain.low is not None
    assert gain.high is not None
    assert gain.value is not None
    assert 0 < gain.low < gain.value < gain.high
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["promoted"] is True


@pytest.mark.parametrize("rival", ["champion", "constant", "linear"])
def test_every_rival_can_refuse_it(rival: str) -> None:
    seen = evidence()
    seen.predicted_ms[rival] = seen.predicted_ms["challenger"]
    verdict = judge(seen, GOLDEN)
    assert failed(verdict) == {rival}
    assert not verdict.promoted
    assert "no better than" in verdict.reason


def test_a_gain_that_may_be_chance_refuses_it() -> None:
    seen = evidence(n=200)
    rng = np.random.default_rng(1)
    seen.predicted_ms["champion"] = seen.predicted_ms["challenger"] + rng.normal(0, 30, 200)
    seen.predicted_ms["challenger"] = seen.predicted_ms["challenger"] + rng.normal(0, 30, 200)
    verdict = judge(seen)
    assert failed(verdict) == {"champion"}


def test_the_same_model_again_is_refused_and_the_champion_stays() -> None:
    seen = evidence()
    seen.predicted_ms["champion"] = seen.predicted_ms["challenger"]
    verdict = judge(seen, GOLDEN)
    assert verdict.reason.endswith("gain +0.0 (+0.0 to +0.0): it stays")


def test_a_first_model_needs_no_champion_to_beat_but_both_baselines() -> None:
    seen = evidence(champion=False)
    assert judge(seen, GOLDEN).promoted
    seen.predicted_ms["linear"] = seen.measured_ms
    verdict = judge(seen, GOLDEN)
    assert failed(verdict) == {"linear"}
    assert "worse than linear regression" in verdict.reason


@pytest.mark.parametrize(("covers", "promoted"), [(0.82, False), (0.88, True), (0.92, True), (0.99, False)])
def test_coverage_out_of_bounds_either_way_refuses_it(covers: float, promoted: bool) -> None:
    verdict = judge(evidence(covers=covers), GOLDEN)
    assert verdict.promoted is promoted
    assert checks_of(verdict)["coverage"].value == pytest.approx(covers, abs=0.001)
    assert ("coverage" in failed(verdict)) is not promoted


def test_coverage_of_one_slice_refuses_it_though_all_together_are_covered() -> None:
    seen = evidence(n=4000, covers=1.0)
    assert seen.quantiles_ms is not None
    missed = np.flatnonzero(seen.slices == 3)[::3]  # a third of one slice, 8 % of all
    seen.quantiles_ms[missed, 1] = 1.0
    others = np.flatnonzero(seen.slices != 3)[::40]
    seen.quantiles_ms[others, 1] = 1.0
    verdict = judge(seen, GOLDEN)
    assert checks_of(verdict)["coverage"].passed
    assert "coverage.6+" in failed(verdict)


def test_runs_of_misses_are_no_excuse() -> None:
    seen = evidence(covers=1.0)
    assert seen.quantiles_ms is not None
    seen.quantiles_ms[:200, 1] = 1.0  # one run: by blocks, the interval of this coverage would hold 0.9
    assert "coverage" in failed(judge(seen, GOLDEN))


def test_few_rows_of_a_slice_tell_nothing_of_its_coverage() -> None:
    verdict = judge(evidence(n=150, covers=0.2), GOLDEN)
    assert checks_of(verdict)["coverage"].passed is None
    assert "not judged: 150 rows" in checks_of(verdict)["coverage"].said
    assert verdict.promoted


@pytest.mark.parametrize(("short", "promoted"), [(1.3, True), (0.97, True), (0.8, False)])
def test_optimism_under_load_refuses_it_and_pessimism_does_not(short: float, promoted: bool) -> None:
    seen = evidence(short=short)
    for rival in ("champion", "constant", "linear"):
        seen.predicted_ms[rival] = np.zeros(N)
    verdict = judge(seen, GOLDEN)
    assert checks_of(verdict)["saturation"].passed is promoted
    assert checks_of(verdict)["saturation"].value == pytest.approx(short - 1, abs=0.01)
    assert verdict.promoted is promoted


def test_saturation_is_judged_where_most_wait_and_never_where_none_does() -> None:
    seen = evidence()
    few = replace(seen, slices=np.where(seen.slices == 3, 0, seen.slices))
    few.slices[:10] = 3
    assert "where 3-5, 6+ wait" in checks_of(judge(few))["saturation"].said
    unloaded = checks_of(judge(replace(seen, slices=np.zeros(N, dtype=np.int64))))["saturation"]
    assert unloaded.passed is None


def test_golden_rows_that_differ_refuse_it() -> None:
    verdict = judge(evidence(), Check("golden", False, "golden rows: off"))
    assert (verdict.promoted, failed(verdict)) == (False, {"golden"})


def test_too_few_rows_are_not_judged_and_so_refused() -> None:
    verdict = judge(evidence(n=29), GOLDEN)
    assert (verdict.promoted, verdict.checks) == (False, ())
    assert verdict.reason == "not judged: only 29 requests are held out; expected at least 30"


def test_too_few_rows_that_are_new_to_the_champion_refuse_it() -> None:
    seen = evidence()
    seen.predicted_ms["champion"][29:] = np.nan
    verdict = judge(seen, GOLDEN)
    assert failed(verdict) == {"champion"}
    assert "only 29 requests are new to the champion too" in verdict.reason


def test_a_censored_row_counts_by_what_is_known_of_it() -> None:
    seen = evidence()
    # Cut off early, where everyone predicted far more: nobody is known to be wrong, nor any coverage.
    cut = replace(seen, measured_ms=seen.measured_ms.copy(), censored=np.random.default_rng(1).random(N) < 0.5)
    cut.measured_ms[cut.censored] = 1.0
    verdict, whole = judge(cut, GOLDEN), judge(seen, GOLDEN)
    assert verdict.mae_ms is not None
    assert whole.mae_ms is not None
    assert verdict.mae_ms["linear"] == pytest.approx(whole.mae_ms["linear"] / 2, rel=0.1)
    assert checks_of(verdict)["coverage"].rows == int((~cut.censored).sum())
    assert checks_of(verdict)["coverage"].value == pytest.approx(0.9, abs=0.02)
    # Cut off late: a prediction below the bound is wrong by that much at least.
    late = replace(cut, measured_ms=np.where(cut.censored, 1e6, cut.measured_ms))
    assert failed(judge(late, GOLDEN)) >= {"coverage", "saturation"}


def test_golden_rows_of_a_sound_model_agree(gate_model: LatencyModel) -> None:
    check = golden_check(gate_model, RANGES)
    assert check.passed
    assert check.value is not None
    assert check.value < 1e-12


def test_golden_rows_find_a_model_that_does_not_survive_being_saved(gate_model: LatencyModel) -> None:
    check = golden_check(replace(gate_model, mean_ratio=float("nan")), RANGES)
    assert check.passed is False
    trees = lgb.train(
        {"objective": "l2", "num_leaves": 100, "min_data_in_leaf": 1, "verbose": -1},
        lgb.Dataset(np.random.default_rng(0).random((5000, len(FEATURE_NAMES))), np.random.default_rng(1).random(5000)),
        1,
    )
    wide = golden_check(replace(gate_model, booster=trees, heads={}, features=FEATURE_NAMES), RANGES)
    assert wide.passed is False
    assert "expected at most 64" in wide.said
