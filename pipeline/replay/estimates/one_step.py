"""One-step estimates beside the replay: what changing a single decision would do, on logged states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.beyond.derivative import derivative
from lodestar.pipeline.estimation.beyond.known import known_before
from lodestar.pipeline.estimation.blocks import BLOCKS, block_of
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
from lodestar.pipeline.replay.estimates.direct_only import direct, direct_tails, left_out, without_propensities
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
        notes: why there are none, or what to know of them, sentences without a full stop.
        blocks: of consecutive requests, on which intervals rest.
        same_requests: whether those of values are for these very requests once more.
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
    notes: list[str] = field(default_factory=list)
    blocks: int = BLOCKS
    same_requests: bool = False

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
                "one_step_notes": self.notes,
                "one_step_blocks": self.blocks,
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
    blocks: int = BLOCKS,
    same_requests: bool = False,
) -> OneStep:
    """Estimate TTFT under each policy one step at a time, with a predictor cross-fitted over blocks of time.

    A diagnostic: where the log does not allow it, there are no rows, and the notes say why.

    Args:
        traffic: what was logged.
        policies: by name.
        fleet: instances of the log.
        baseline: the policy that the others are compared with.
        seed: of the predictor and of the intervals.
        slo_ttft_ms: TTFT that is still good.
        blocks: of consecutive requests, on which intervals rest.
        same_requests: whether those of values are for these very requests once more, not for other traffic like them.
    """
    log, counted = traffic.log, traffic.counted
    inputs = logged_inputs(log, traffic.workload, traffic.propensity, traffic.propensity_note, counted, seed)
    test, untested = router_test(log, counted, blocks)
    notes = [*inputs.notes, *([untested] if untested else [])]
    found = OneStep(inputs, test=test, notes=notes, blocks=blocks, same_requests=same_requests)
    if inputs.decisions is None:
        return found
    if not inputs.decisions.has_propensities:
        _value_directly(found, traffic, policies, fleet)
        found.notes.append(without_propensities(inputs.with_propensity, inputs.decisions.decisions))
        return found
    _value(found, traffic, policies, fleet, slo_ttft_ms)
    if inputs.whole is not None and not found.weighed:
        return _of_whole(found, inputs.whole, traffic, policies, fleet)
    weighed = {name: rows for name, rows in found.scored.items() if name in found.weighed}
    differences, none = one_step_differences(weighed, baseline, slo_ttft_ms, seed, blocks)
    found.notes.extend(none)
    return replace(found, differences=differences)


def _value(
    found: OneStep,
    traffic: LoggedTraffic,
    policies: Mapping[str, AnyPolicy],
    fleet: Fleet,
    slo_ttft_ms: float | None,
) -> None:
    """Add all that the log's weights carry of each policy, and dm alone where they carry none."""
    inputs, probabilities = found.inputs, None
    assert inputs.decisions is not None
    mixed = inputs.decisions.logger is not None
    if mixed:
        probabilities, unbalanced = logger_probabilities(inputs, traffic.log, traffic.workload, fleet)
        found.notes.extend([unbalanced] if unbalanced else [])
    for name, rows in _scored(found, traffic, policies, fleet):
        verdict = _judge(found, name, rows)
        block = block_of(rows.log.decisions, found.blocks)
        _values(found, name, rows, estimators() if verdict.carries_weights else ("dm",))
        _tails(found, name, rows, slo_ttft_ms, verdict)
        if not verdict.carries_weights:
            found.notes.append(left_out(name, verdict))
            continue
        found.weighed.add(name)
        if mixed:
            rows_of, failed = mixed_estimates(rows, name, block, probabilities, found.same_requests)
            found.rows.extend(rows_of)
            found.notes.extend(failed)
        _derive(found, name, rows, traffic)


def _value_directly(found: OneStep, traffic: LoggedTraffic, policies: Mapping[str, AnyPolicy], fleet: Fleet) -> None:
    """Add what the predictor alone says of each policy."""
    for name, rows in _scored(found, traffic, policies, fleet):
        _values(found, name, rows, ("dm",))


def _of_whole(
    found: OneStep, whole: LoggedInputs, traffic: LoggedTraffic, policies: Mapping[str, AnyPolicy], fleet: Fleet
) -> OneStep:
    """Let the predictor speak of all decisions where the few that have a propensity carry no policy's weights."""
    assert whole.decisions is not None
    alone = replace(found, inputs=whole, scored={}, weighed=set(), rows=[], tails=[], derivatives=[])
    _value_directly(alone, traffic, policies, fleet)
    alone.notes.append(
        f"as the {found.inputs.with_propensity:,} decisions with a propensity carry no policy's weights, dm is of all "
        f"{whole.decisions.decisions:,}"
    )
    return alone


def _scored(
    found: OneStep, traffic: LoggedTraffic, policies: Mapping[str, AnyPolicy], fleet: Fleet
) -> Iterator[tuple[str, OneStepInput]]:
    """Yield what estimators take of each policy that can be valued, and note what to know of all."""
    inputs = found.inputs
    for name, policy in policies.items():
        rows, said = target_of(inputs, policy, traffic.log, traffic.workload, fleet)
        found.notes.extend(f"{name}: {each}" for each in said)
        if rows is not None:
            found.scored[name] = replace(rows, embedding=_embedding(inputs), features=_features(inputs))
            yield name, found.scored[name]
    found.notes.extend(_alike(found.scored))


def _alike(scored: Mapping[str, OneStepInput]) -> list[str]:
    """Name policies that decide alike in every logged state, so that nobody wonders at equal numbers."""
    return [
        f"{one} and {other} decide alike in all of these logged states"
        for one, other in combinations(scored, 2)
        if np.array_equal(scored[one].target, scored[other].target)
    ]


def _judge(found: OneStep, policy: str, rows: OneStepInput) -> Verdict:
    """Add the diagnostics of a policy, before any number of it; return what it is good for."""
    inputs, block = found.inputs, block_of(rows.log.decisions, found.blocks)
    try:
        foretold = chosen_quantiles(rows, block, _FORETOLD)
    except DataError as error:
        foretold = {}
        found.notes.append(f"no calibration of the predictor beside {policy}: {error}")
    judged = diagnose(rows, block, _buckets(inputs), inputs.instance, foretold)
    found.diagnostics.append({"policy": policy, **judged.to_dict()})
    return judged.verdict


def _values(found: OneStep, policy: str, rows: OneStepInput, names: Iterable[str]) -> None:
    """Add what each of these estimators says of a policy, or why it says nothing."""
    block = block_of(rows.log.decisions, found.blocks)
    for name in names:
        try:
            of = estimate(rows, policy, name, block, same_requests=found.same_requests)
            found.rows.append((direct(of) if name == "dm" else of).to_dict())
        except DataError as error:  # such as: the prediction is not finite for a candidate
            found.notes.append(f"no {name} of {policy}: {error}")


def _tails(found: OneStep, policy: str, rows: OneStepInput, slo_ttft_ms: float | None, verdict: Verdict) -> None:
    """Add the tails of a policy, those by weights where the verdict allows them, or why there are none."""
    try:
        measures = tail_measures(rows, block_of(rows.log.decisions, found.blocks), slo_ttft_ms)
    except DataError as error:
        found.notes.append(f"no tails of {policy}: {error}")
        return
    measures = measures if verdict.carries_weights else direct_tails(measures, verdict)
    found.tails.extend({"policy": policy, **each.to_dict()} for each in measures)


def _derive(found: OneStep, policy: str, rows: OneStepInput, traffic: LoggedTraffic) -> None:
    """Add the derivative towards a policy, or why there is none."""
    cost, counted = rows.log.cost, int(traffic.counted.sum())
    if (left := counted - rows.log.decisions) > MOST_LEFT_OUT * counted:
        found.notes.append(f"no derivative towards {policy}: {left} of {counted} requests lack a TTFT or a propensity")
        return
    arrived_at_s = traffic.workload.arrived_at_s[found.inputs.rows]
    known = known_before(cost, arrived_at_s + cost / 1000, arrived_at_s)
    try:
        path = derivative(cost, weights(rows), block=block_of(len(cost), found.blocks), known=known)
    except DataError as error:
        found.notes.append(f"no derivative towards {policy}: {error}")
        return
    found.derivatives.append({"policy": policy, **path.to_dict()})


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
