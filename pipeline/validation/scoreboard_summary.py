"""What the rows of the queueing world's scoreboard come to, and which targets they meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.validation.scoreboard_ranks import apart, kendall_tau

__all__ = ["MOST_ERROR", "MOST_Z", "summary_of"]

Floats = NDArray[np.float64]
Row = dict[str, Any]

MOST_ERROR: Final = 0.03
MOST_Z: Final = 2.0


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return Kendall's τ of each method against the closed-loop truth, the worst errors, and the targets.

    Policies are ranked by the mean TTFT of their median seed: of one with several states, the mean over seeds is that
    of its rare ones.

    Steady policies are those that the truth flags as neither unstable nor dependent on their path.
    """
    steady = [row for row in rows if not _needs_flag(row)]
    taus = _taus(rows)
    worst = {
        "replayed": _worst(steady, lambda row: row["replayed"]["relative_error"]),
        "replayed_p99": _worst(steady, lambda row: row["replayed"]["p99_relative_error"]),
        "misspecified": _worst(steady, lambda row: row["misspecified"]["relative_error"]),
        "misspecified_corrected": _worst(steady, lambda row: row["misspecified"]["corrected_relative_error"]),
    }
    return {
        "kendall_tau": taus,
        "worst_error": worst,
        "one_step_worst_error": {name: _worst(rows, _one_step_error(name)) for name in rows[0]["estimators"]},
        "one_step_covered": {name: _covered(rows, name) for name in rows[0]["estimators"]},
        "derivative_logs_within_two_se": _within(rows),
        "targets": _targets(rows, taus["replayed"], worst["replayed"]),
    }


def _taus(rows: Sequence[Row]) -> dict[str, float]:
    """Return τ by the median seed, which a policy with several states still has, and that of the means beside it."""
    truth = _column(rows, lambda row: row["truth_median_ms"])
    counted = apart(truth, _column(rows, lambda row: row["truth_median_se_ms"]))
    methods = {"e1_truth": _column(rows, lambda row: row["e1_truth_ms"])}
    methods |= {name: _column(rows, _estimated(name)) for name in rows[0]["estimators"]}
    methods |= {name: _column(rows, _of_median(name)) for name in ("replayed", "misspecified")}
    taus = {name: kendall_tau(values, truth, counted) for name, values in methods.items()}
    means = _column(rows, lambda row: row["truth_mean_ms"])
    apart_by_mean = apart(means, _column(rows, lambda row: row["truth_se_ms"]))
    replayed = _column(rows, lambda row: row["replayed"]["mean_ms"])
    return taus | {"replayed_by_mean": kendall_tau(replayed, means, apart_by_mean)}


def _column(rows: Sequence[Row], value: Callable[[Row], float | None]) -> Floats:
    """Return one value a policy; NaN where there is none, which is in no order."""
    return np.array([value(row) for row in rows], dtype=np.float64)


def _estimated(name: str) -> Callable[[Row], float | None]:
    return lambda row: row["estimators"][name]["value_ms"]


def _of_median(method: str) -> Callable[[Row], float | None]:
    return lambda row: row[method]["median_ms"]


def _targets(rows: Sequence[Row], tau: float, error: float) -> list[dict[str, Any]]:
    """Return every target with what was measured and whether it is met."""
    missed = [row["policy"] for row in rows if _needs_flag(row) and not _is_flagged(row)]
    z = max(abs(row["derivative"]["z"]) for row in rows if row["derivative"])
    return [
        _target("the replay ranks all policies that the truth tells apart right", "Kendall's tau 1", tau, tau == 1.0),
        _target("its mean error on steady policies", f"at most {MOST_ERROR:.0%}", error, error <= MOST_ERROR),
        _target("unstable and path-dependent policies that it does not flag", "none", missed, not missed),
        _target("D_H from its truth, mean of its logs, in standard errors", f"at most {MOST_Z:g}", z, z <= MOST_Z),
    ]


def _within(rows: Sequence[Row]) -> float:
    """Return the share of single logs, over all policies, whose D_H is within two standard errors of the truth."""
    found = [row["derivative"] for row in rows if row["derivative"]]
    return float(sum(each["logs_within_two_se"] for each in found) / sum(each["logs"] for each in found))


def _needs_flag(row: Row) -> bool:
    return bool(row["truth_unstable"] or row["truth_path_dependent"])


def _is_flagged(row: Row) -> bool:
    """Say whether the replay flags what there is: growth by its own flag, several states by either."""
    found = row["replayed"]
    return bool(found["unstable"] if row["truth_unstable"] else found["unstable"] or found["path_dependent"])


def _target(name: str, wanted: str, measured: float | list[str], met: bool) -> dict[str, Any]:
    return {"target": name, "wanted": wanted, "measured": measured, "met": bool(met)}


def _worst(rows: Sequence[Row], error: Callable[[Row], float | None]) -> float:
    """Return the largest absolute error; NaN where there is none."""
    found = [abs(each) for row in rows if (each := error(row)) is not None]
    return max(found, default=float("nan"))


def _one_step_error(name: str) -> Callable[[Row], float | None]:
    return lambda row: row["estimators"][name].get("relative_error")


def _covered(rows: Sequence[Row], name: str) -> float:
    """Return the share of policies whose truth an estimator's interval covers."""
    found = [row["estimators"][name]["covered"] for row in rows if "covered" in row["estimators"][name]]
    return float(np.mean(found)) if found else float("nan")
