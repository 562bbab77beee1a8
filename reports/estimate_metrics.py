"""Estimates from a log as metrics of an MLflow run: what they claim stands in their names."""

from __future__ import annotations

from lodestar.reports.result import Result

__all__ = ["estimate_metrics"]


def estimate_metrics(result: Result) -> dict[str, float]:
    """Return one-step values, sample sizes, derivatives and gaps, by policy; what is known.

    A one-step value is ``one_step/<policy>/<estimator>_ms``, apart from the closed-loop metrics of the policy; the
    closed loop after correction by the log's ratio is ``<policy>/ttft_ms_mean_ratio_corrected``, where nothing speaks
    against that correction: a number that is to be doubted does not stand among a policy's metrics.
    """
    named: dict[str, float | None] = {}
    for value in result["one_step"]:
        named[f"one_step/{value['policy']}/{value['estimator']}_ms"] = value["value_ms"]
    for row in result.get("one_step_diagnostics", []):
        at = f"one_step/{row['policy']}"
        named |= {f"{at}/ess": row["weights"]["ess"], f"{at}/mean_weight": row["weights"]["mean"]}
    for row in result.get("one_step_tails", []):
        named[f"one_step/{row['policy']}/{row['measure']}_{row['estimator']}"] = row["value"]
    for row in result.get("derivatives", []):
        at = f"derivative/{row['policy']}"
        named |= {f"{at}/value_ms": row["value"], f"{at}/se_ms": row["se"]}
    for row in result.get("gap", []):
        told = row["feedback_ms"] if row.get("feedback_told", True) else None
        named |= {f"gap/{row['policy']}/feedback_ms": told, f"gap/{row['policy']}/ms": row["gap_ms"]}
        if not row["ratio_doubted"]:
            named[f"{row['policy']}/ttft_ms_mean_ratio_corrected"] = row["ratio_corrected_ms"]
    return {name: float(value) for name, value in named.items() if value is not None}
