"""Whether a new model may replace the champion: named checks, each with its number, its interval and its limit.

A gain must be shown: the interval of the paired difference has to exclude zero, and it is that of rows which depend on
their neighbours, the wider one. Coverage and saturation are refused where they are out of bounds by more than the
sampling error of independent rows, the narrower one: that misses come in runs is drift, which a calibrated model is to
follow, and no excuse. So both times the doubt counts against the challenger; few rows show little either way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.models.evaluation.censored import kaplan_meier_coverage
from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.registry.gate_evidence import CHALLENGER, CHAMPION, CONSTANT, LINEAR, MIN_NEWEST, Evidence
from lodestar.models.registry.golden import TOLERANCE, worst_difference
from lodestar.models.slices import SLICES
from lodestar.models.uncertainty.paired import Interval, paired_interval

__all__ = ["COVERAGE", "MIN_SLICE", "OPTIMISM", "Check", "Verdict", "golden_check", "judge"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

QUANTILE: Final = "p90"  # whose coverage is checked
COVERAGE: Final = (0.88, 0.92)  # bounds of it
MIN_SLICE: Final = 200  # rows of a slice whose coverage is checked
OPTIMISM: Final = 0.1  # share of the mean latency under load that the mean prediction may fall short by
NORMAL: Final = 1.96  # standard deviations of a 95 % interval
_WORDS: Final = {CHAMPION: "the champion", CONSTANT: "a constant", LINEAR: "linear regression"}
_UNLOADED: Final = (0, len(SLICES) - 1)  # slices that are never called saturated


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of a promotion.

    Attributes:
        name: 'champion', 'constant', 'linear', 'coverage', 'coverage.<slice>', 'saturation' or 'golden'.
        passed: None where there were too few rows to tell.
        said: in words, with the numbers.
        rows: that it was measured on.
        value: the number; None where there was none.
        low: from, of its 95 % interval.
        high: to.
        at_least: lower limit; None for none.
        at_most: upper limit; None for none.
    """

    name: str
    passed: bool | None
    said: str
    rows: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison behind a promotion or a refusal.

    Attributes:
        promoted: whether all checks that could be made were passed.
        reason: in words.
        rows: newest rows that were measured.
        checks: see `Check`.
        mae_ms: predictor → mean absolute error on the rows that it had not seen.
    """

    promoted: bool
    reason: str
    rows: int = 0
    checks: tuple[Check, ...] = ()
    mae_ms: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def judge(evidence: Evidence, golden: Check | None = None) -> Verdict:
    """Let a challenger pass if it beats the champion, a constant and linear regression, and is honest about itself.

    Beaten is who has a larger mean absolute error in ms, sure to 95 %. All are scored alike, but a model of the mean is
    no model of the median: one that predicted the median would have a smaller absolute error, and serve a router less.
    Of a censored row only the part of the error is known, and counted, by which a prediction lies below the bound.

    Args:
        evidence: of rows that the challenger has not seen.
        golden: what `golden_check` found of the model that would be put in use.
    """
    if len(evidence) < MIN_NEWEST:
        reason = f"not judged: only {len(evidence)} requests are held out; expected at least {MIN_NEWEST}"
        return Verdict(False, reason, len(evidence))
    rivals = [name for name in _WORDS if name in evidence.predicted_ms]
    checks = [*(_gain(evidence, rival) for rival in rivals), *_coverages(evidence), _saturation(evidence)]
    checks += [golden] if golden else []
    errors = {name: _loss_ms(evidence, name) for name in evidence.predicted_ms}
    mae_ms = {name: float(np.nanmean(loss)) for name, loss in errors.items() if not np.isnan(loss).all()}
    failed = [check for check in checks if check.passed is False]
    return Verdict(not failed, _reason(evidence, checks, failed), len(evidence), tuple(checks), mae_ms)


def golden_check(model: LatencyModel, ranges: dict[str, list[float] | None]) -> Check:
    """Save a model, load it again, and score golden rows through every path there is."""
    try:
        worst = worst_difference(model, ranges)
    except ArtifactError as error:
        return Check("golden", False, f"golden rows: {error}", at_most=TOLERANCE)
    passed = worst <= TOLERANCE
    said = f"golden rows: all ways of scoring agree to {worst:.1e}, {TOLERANCE:.0e} allowed"
    return Check("golden", passed, said, value=worst, at_most=TOLERANCE)


def _gain(evidence: Evidence, rival: str) -> Check:
    theirs, ours = _loss_ms(evidence, rival), _loss_ms(evidence, CHALLENGER)
    known = ~np.isnan(theirs)
    rows = int(known.sum())
    if rows < MIN_NEWEST:
        said = f"only {rows} requests are new to {_WORDS[rival]} too; expected at least {MIN_NEWEST} to compare"
        return Check(rival, False, said, rows, at_least=0.0)
    found = paired_interval(theirs[known] - ours[known])
    passed = found.low > 0.0
    words = "better than" if passed else "worse than" if found.high < 0.0 else "no better than"
    said = (
        f"{words} {_WORDS[rival]}: MAE {ours[known].mean():.1f} against {theirs[known].mean():.1f} ms, "
        f"gain {_span(found, 1)}"
    )
    return Check(rival, passed, said, rows, found.mean, found.low, found.high, at_least=0.0)


def _coverages(evidence: Evidence) -> list[Check]:
    if evidence.quantiles_ms is None:
        return []
    stated_ms = evidence.quantiles_ms[:, list(QUANTILES).index(QUANTILE)]
    checks = [_coverage("coverage", "", evidence, stated_ms, np.ones(len(evidence), dtype=np.bool_))]
    for position, name in enumerate(SLICES):
        of = evidence.slices == position
        if (of & ~evidence.censored).sum() >= MIN_SLICE:
            checks.append(_coverage(f"coverage.{name}", f" where {name} wait", evidence, stated_ms, of))
    return checks


def _coverage(name: str, where: str, evidence: Evidence, stated_ms: Floats, of: Bools) -> Check:
    """Refuse a coverage that lies outside of the bounds by more than rows at the nominal coverage would stray.

    Rows that were cut off count by the estimate of Kaplan and Meier, and add nothing to the number of rows.
    """
    (low, high), nominal = COVERAGE, QUANTILES[QUANTILE]
    rows = int((of & ~evidence.censored).sum())
    if rows < MIN_SLICE:
        said = f"P90 coverage{where} not judged: {rows} rows; expected at least {MIN_SLICE}"
        return Check(name, None, said, rows, at_least=low, at_most=high)
    value = kaplan_meier_coverage(evidence.measured_ms[of], stated_ms[of], evidence.censored[of])
    found = _independent(value, math.sqrt(nominal * (1.0 - nominal)), rows)
    passed = found.high >= low and found.low <= high
    said = f"P90 covers {_span(found, 3)}{where}, {low} to {high} allowed"
    return Check(name, passed, said, rows, found.mean, found.low, found.high, low, high)


def _saturation(evidence: Evidence) -> Check:
    """Refuse predictions that fall short of the mean latency where most requests wait, by more than `OPTIMISM`."""
    predicted_ms, measured_ms = evidence.predicted_ms[CHALLENGER], evidence.measured_ms
    known = ~evidence.censored | (predicted_ms < measured_ms)
    those, names = _most_loaded(evidence.slices, known)
    if not names:
        said = f"bias under load not judged: fewer than {MIN_NEWEST} requests met a queue"
        return Check("saturation", None, said, int(those.sum()), at_least=-OPTIMISM)
    bias = (predicted_ms[those] - measured_ms[those]) / measured_ms[those].mean()
    found = _independent(float(bias.mean()), float(bias.std(ddof=1)), len(bias))
    passed = found.high >= -OPTIMISM
    word = "not optimistic" if passed else "optimistic"
    said = f"{word} where {', '.join(names)} wait: bias {_span(found, 3)} of the mean, {-OPTIMISM} allowed"
    return Check("saturation", passed, said, int(those.sum()), found.mean, found.low, found.high, at_least=-OPTIMISM)


def _most_loaded(slices: NDArray[np.int64], known: Bools) -> tuple[Bools, list[str]]:
    """Return the rows of the highest slices that have enough of them together, and the names of these slices."""
    those = np.zeros(len(slices), dtype=np.bool_)
    names: list[str] = []
    for position in range(len(SLICES) - 1, -1, -1):
        of = known & (slices == position)
        if position in _UNLOADED or not of.any():
            continue
        those |= of
        names.insert(0, SLICES[position])
        if those.sum() >= MIN_NEWEST:
            return those, names
    return those, []


def _independent(mean: float, deviation: float, rows: int) -> Interval:
    margin = NORMAL * deviation / math.sqrt(rows)
    return Interval(mean, mean - margin, mean + margin)


def _loss_ms(evidence: Evidence, name: str) -> Floats:
    """Absolute error; of a censored row what is known of it. NaN where nothing was predicted."""
    error = evidence.predicted_ms[name] - evidence.measured_ms
    loss: Floats = np.where(evidence.censored & (error > 0), 0.0, np.abs(error))
    return loss


def _reason(evidence: Evidence, checks: Sequence[Check], failed: Sequence[Check]) -> str:
    gains = [check for check in checks if check.name in _WORDS]
    said = "; ".join(check.said for check in failed or gains)
    stays = ": it stays" if any(check.name == CHAMPION for check in failed) else ""
    doubt = f" ({evidence.doubt})" if evidence.doubt else ""
    return f"on the newest {len(evidence)} requests {said}{stays}{doubt}"


def _span(found: Interval, places: int) -> str:
    """Write a mean with its interval.

    >>> _span(Interval(1.26, -0.04, 2.5), 1)
    '+1.3 (-0.0 to +2.5)'
    """
    sign = "+" if places < 3 or found.mean < 0 or found.low < 0 else ""
    return f"{found.mean:{sign}.{places}f} ({found.low:{sign}.{places}f} to {found.high:{sign}.{places}f})"
