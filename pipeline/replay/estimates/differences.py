"""Policies against a baseline, one step at a time: paired, for all at once, and as a gate to look at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import BLOCKS, block_of
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.confidence_sequence import difference_sequence
from lodestar.pipeline.estimation.intervals.gate import decides
from lodestar.pipeline.estimation.intervals.simultaneous import compared
from lodestar.pipeline.estimation.one_step import OneStepInput, weights

__all__ = ["one_step_differences"]


def one_step_differences(
    scored: Mapping[str, OneStepInput],
    baseline: str,
    slo_ttft_ms: float | None,
    seed: int,
    blocks: int = BLOCKS,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return one row a policy: its doubly robust value less the baseline's, and whether it surely misses the SLO less.

    The gate on the SLO is anytime-valid: latencies have no bound, but a miss is 0 or 1. A policy without a doubly
    robust value is left out, and a note says why.

    Args:
        scored: policy → the same decisions with what it would have done, for those whose weights the log carries.
        baseline: the policy that they are compared with.
        slo_ttft_ms: TTFT that is still good; None: no gate.
        seed: of the draws.
        blocks: of consecutive requests, on which intervals rest.
    """
    values, notes = {}, []
    for name, of in scored.items():
        try:
            values[name] = dr(of)
        except DataError as error:  # such as: it shares no logged decision
            notes.append(f"{name} is left out of the one-step differences: {error}")
    if values and baseline not in values:
        notes.append(f"no one-step differences: {baseline} has no doubly robust value; name another --baseline")
    if baseline not in values or len(values) < 2:
        return [], notes
    block = block_of(scored[baseline].log.decisions, blocks)
    rows = [each.to_dict() for each in compared(values, baseline, block, seed=seed)]
    if slo_ttft_ms is not None:
        for row in rows:
            if row["policy"] != baseline:
                row["slo_gate"] = _gate(scored[row["policy"]], scored[baseline], slo_ttft_ms)
    return rows, notes


def _gate(rows: OneStepInput, base: OneStepInput, slo_ttft_ms: float) -> dict[str, Any]:
    missed = (rows.log.cost > slo_ttft_ms).astype(np.float64)
    found = decides(difference_sequence(missed, weights(rows), weights(base), Bounds(0.0, 1.0)))
    return {"verdict": found.verdict, "decisions": found.decisions, "estimand": found.estimand}
