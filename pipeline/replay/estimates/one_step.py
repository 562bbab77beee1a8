"""One-step estimates beside the replay: what changing a single decision would do, on logged states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.beyond.derivative import derivative
from lodestar.pipeline.estimation.beyond.known import costs_before
from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.diagnostics.diagnose import diagnose
from lodestar.pipeline.estimation.diagnostics.verdict import Verdict
from lodestar.pipeline.estimation.embedding import cells
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.json_ready import json_ready
from lodestar.pipeline.estimation.one_step import OneStepInput, weights
from lodestar.pipeline.estimation.tails.measures import tail_measures
from lodestar.pipeline.estimation.tails.residuals import chosen_quantiles
from lodestar.pipeline.replay.estimates.differences import one_step_differences
from lodestar.pipeline.replay.estimates.direct_only import WITHOUT_PROPENSITIES, direct_row, direct_tails, left_out
from lodestar.pipeline.replay.estimates.logged_inputs import MOST_LEFT_OUT, LoggedInputs, logged_inputs, target_of
from lodestar.pipeline.replay.estimates.mixed_loggers import logger_probabilities, mixed_estimates
from lodestar.pipeline.replay.estimates.router_test import router_test
from lodestar.pipeline.replay.logged_traffic import LoggedTraffic
from lodestar.pipeline.replay.parallel import AnyPolicy
from lodestar.pipeline.replay.routing.contract import Fleet

__all__ = ["OneStep", "one_step"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_FORETOLD: Final = (0.1, 0.5, 0.9)  # quantiles by which the predictor's calibration is looked at
_TIME_BUCKETS: Final = 5
_LOAD_BUCKETS: Final = 4


@dataclass(frozen=True, slots=True)
class OneStep:
    """Rows for tables and documents, and what they are made of.

    Attributes:
        inputs: of the log, the same for all policies.
        scored: policy → what estimators took, for those that could be valued.
        weighed: those of them whose weights the log carries; the others have dm alone.
        rows: one a policy and estimator.
        differences: one a policy, to the baseline.
        tails: one a policy, estimator and measure.
        diagnostics: one a policy.
        derivatives: one a policy.
        test: what two routers that shared the log's traffic differ by; None for a log of one.
        note: why there are none, or what to know of them.
    """

    inputs: LoggedInputs
    scored: dict[str, OneStepInput] = field(default_factory=dict)
    weighed: set[str] = field(default_factory=set)
    rows: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    tails: list[dict[str, Any]] = field(default_factory=list)
    diagnostics: list[dict[str, Any]] = field(default_factory=list)
    derivatives: list[dict[str, Any]] = field(default_factory=list)
    test: dict[str, Any] | None = None
    note: str | None = None

    @property
    def inferred(self) -> dict[str, str]:
        """Which snapshot fields the log left out, and how they were inferred."""
        return self.inputs.inferred

    @property
    def calibration(self) -> pl.DataFrame | None:
        """Predicted and measured TTFT of the logged choices."""
        return self.inputs.calibration

    def to_dict(self) -> dict[str, Any]:
        """Return the parts of a replay's document."""
        found: dict[str, Any] = json_ready(
            {
                "one_step": self.rows,
                "one_step_differences": self.differences,
                "one_step_tails": self.tails,
                "one_step_diagnostics": self.diagnostics,
                "derivatives": self.derivatives,
                "test": self.test,
                "one_step_note": self.note,
            }
        )
        return found


def one_step(
    traffic: LoggedTraffic,
    policies: Mapping[str, AnyPolicy],
    fleet: Fleet,
    baseline: str,
    seed: int = 0,
    slo_ttft_ms: float | None = None,
) -> OneStep:
    """Estimate TTFT under each policy one step at a time, with a predictor cross-fitted over blocks of time.

    A diagnostic: where the log does not allow it, there are no rows, and the note says why.

    Args:
        traffic: what was logged.
        policies: by name.
        fleet: instances of the log.
        baseline: the policy that the others are compared with.
        seed: of the predictor and of the intervals.
        slo_ttft_ms: TTFT that is still good.
    """
    log, workload, counted = traffic.log, traffic.workload, traffic.counted
    inputs = logged_inputs(log, workload, traffic.propensity, traffic.propensity_note, counted, seed)
    test, untested = router_test(log, counted)
    found, notes = OneStep(inputs, test=test), [*inputs.notes, *([untested] if untested else [])]
    if inputs.decisions is None:
        return replace(found, note="; ".join(notes) or None)
    probabilities = None
    weighable = inputs.decisions.has_propensities
    if weighable and inputs.decisions.logger is not None:
        probabilities, unbalanced = logger_probabilities(inputs, log, workload, fleet)
        notes += [unbalanced] if unbalanced else []
    for name, policy in policies.items():
        rows, said = target_of(inputs, policy, log, workload, fleet)
        notes += [f"{name}: {each}" for each in said]
        if rows is None:
            continue
        rows = replace(rows, embedding=_embedding(inputs), features=_features(inputs))
        found.scored[name] = rows
        if not weighable:
            notes += _values(found, name, rows, ("dm",))
            continue
        verdict, unknown = _judge(found, name, rows)
        notes += unknown
        notes += _values(found, name, rows, estimators() if verdict.carries_weights else ("dm",))
        notes += _tails(found, name, rows, slo_ttft_ms, verdict)
        if not verdict.carries_weights:
            notes.append(left_out(name, verdict))
            continue
        found.weighed.add(name)
        if inputs.decisions.logger is not None:
            mixed, failed = mixed_estimates(rows, name, block_of(rows.log.decisions), probabilities)
            found.rows.extend(mixed)
            notes += failed
        notes += _derive(found, name, rows, int(counted.sum()))
    notes += _alike(found.scored)
    if not weighable:
        return replace(found, note="; ".join([*notes, WITHOUT_PROPENSITIES]))
    weighed = {name: rows for name, rows in found.scored.items() if name in found.weighed}
    differences, none = one_step_differences(weighed, baseline, slo_ttft_ms, seed)
    notes += none
    return replace(found, differences=differences, note="; ".join(notes) or None)


def _alike(scored: Mapping[str, OneStepInput]) -> list[str]:
    """Name policies that decide alike in every logged state, so that nobody wonders at equal numbers."""
    return [
        f"{one} and {other} decide alike in all of these logged states"
        for one, other in combinations(scored, 2)
        if np.array_equal(scored[one].target, scored[other].target)
    ]


def _judge(found: OneStep, policy: str, rows: OneStepInput) -> tuple[Verdict, list[str]]:
    """Add the diagnostics of a policy, before any number of it; return what it is good for, and what lacks."""
    inputs, block, failed = found.inputs, block_of(rows.log.decisions), []
    try:
        foretold = chosen_quantiles(rows, block, _FORETOLD)
    except DataError as error:
        foretold = {}
        failed.append(f"no calibration of the predictor beside {policy}: {error}")
    judged = diagnose(rows, block, _buckets(inputs), inputs.instance, foretold)
    found.diagnostics.append({"policy": policy, **judged.to_dict()})
    return judged.verdict, failed


def _values(found: OneStep, policy: str, rows: OneStepInput, names: Iterable[str]) -> list[str]:
    """Add what each of these estimators says of a policy; return why some say nothing."""
    failed = []
    for name in names:
        try:
            of = direct_row(rows, policy) if name == "dm" else estimate(rows, policy, name).to_dict()
            found.rows.append(of)
        except DataError as error:  # such as: the prediction is not finite for a candidate
            failed.append(f"no {name} of {policy}: {error}")
    return failed


def _tails(found: OneStep, policy: str, rows: OneStepInput, slo_ttft_ms: float | None, verdict: Verdict) -> list[str]:
    """Add the tails of a policy, those by weights where the verdict allows them; return why there are none."""
    try:
        measures = tail_measures(rows, block_of(rows.log.decisions), slo_ttft_ms)
    except DataError as error:
        return [f"no tails of {policy}: {error}"]
    measures = measures if verdict.carries_weights else direct_tails(measures, verdict)
    found.tails.extend({"policy": policy, **each.to_dict()} for each in measures)
    return []


def _derive(found: OneStep, policy: str, rows: OneStepInput, counted: int) -> list[str]:
    """Add the derivative towards a policy; return why there is none."""
    if (left := counted - rows.log.decisions) > MOST_LEFT_OUT * counted:
        return [f"no derivative towards {policy}: {left} of {counted} requests lack a TTFT or a propensity"]
    try:
        path = derivative(rows.log.cost, weights(rows), known=costs_before(rows.log.cost))
    except DataError as error:
        return [f"no derivative towards {policy}: {error}"]
    found.derivatives.append({"policy": policy, **path.to_dict()})
    return []


def _embedding(inputs: LoggedInputs) -> Ints:
    """Return like candidates: as much of the prompt cached, as many requests before it."""
    return cells(inputs.known(schema.HIT_RATIO), inputs.known(schema.INFLIGHT_REQUESTS))


def _features(inputs: LoggedInputs) -> Floats | None:
    """Return the snapshot fields that are known of every candidate, shape (c, k)."""
    known = [inputs.known(name) for name in schema.SNAPSHOT_FIELDS]
    whole = [values for values in known if np.isfinite(values).all()]
    return np.column_stack(whole) if whole else None


def _buckets(inputs: LoggedInputs) -> dict[str, Ints]:
    """Return buckets of the decisions by what was known before the choice."""
    assert inputs.decisions is not None
    n = inputs.decisions.decisions
    found = {"time": np.arange(n) * _TIME_BUCKETS // n}
    inflight = inputs.known(schema.INFLIGHT_REQUESTS)
    if np.isfinite(inflight).all():
        load = inputs.decisions.sums(inflight) / inputs.decisions.counts
        edges = np.unique(np.quantile(load, np.arange(1, _LOAD_BUCKETS) / _LOAD_BUCKETS))
        found["load"] = np.searchsorted(edges, load, side="right")
    return found
