"""Trust gates and measured arms as metrics of an MLflow run."""

from __future__ import annotations

from lodestar.reports.result import Result

__all__ = ["evidence_metrics"]


def evidence_metrics(result: Result) -> dict[str, float]:
    """Return ``gate/<name>``, its limit and noise floor, and ``measured/<arm>/<policy>/error_<what>``; what is known.

    A gate that passed has 1 at ``gate/<name>/passed``, one that failed 0.
    """
    named: dict[str, float | None] = {}
    for gate in result["trust"]["gates"]:
        at = f"gate/{gate['name']}"
        named |= {at: gate["value"], f"{at}/limit": gate["limit"], f"{at}/noise_floor": gate.get("noise_floor")}
        named[f"{at}/passed"] = float(gate["passed"])
    for row in result.get("measured") or []:
        at = f"measured/{row['measured_dataset']}/{row['policy']}"
        named |= {f"{at}/error_mean": row["error_mean"], f"{at}/error_p99": row["error_p99"]}
        named[f"{at}/error_mean_hits_known"] = row.get("error_mean_hits_known")
        named[f"{at}/one_step_snipw_error"] = row.get("one_step_snipw_error")
    if order := result.get("measured_order"):
        named["measured/order_right"] = float(order["right"])
    return {name: value for name, value in named.items() if value is not None}
