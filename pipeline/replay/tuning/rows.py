"""From the replays of the second part to the rows of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.intervals.replayed import replayed_interval, replayed_intervals
from lodestar.pipeline.estimation.resampling import Resamples, resampled_means, resampled_quantiles, resamples
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.parallel import AnyPolicy

__all__ = ["Variant", "tuning_rows"]

Floats = NDArray[np.float64]

_TAIL: Final = 0.99


class Variant(NamedTuple):
    """A policy with one choice of its settings.

    Attributes:
        name: of the policy, as it was named.
        kind: 'default' as it was named, 'tuned' the best on the first part, 'hindsight' the best on the second.
        settings: the text that replays it.
        policy: with these settings.
        complete: trials of its search that were replayed under every seed; None where there was no search.
        pruned: trials of its search that were given up.
    """

    name: str
    kind: str
    settings: str
    policy: AnyPolicy
    complete: int | None = None
    pruned: int | None = None


def tuning_rows(
    variants: Sequence[Variant],
    outcomes: Mapping[str, list[Outcome]],
    told: Mapping[str, Any],
    objective: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Return one flat row a variant.

    Args:
        variants: in the order of the rows.
        outcomes: settings → runs on the second part, the same seeds for all.
        told: the summary of these outcomes.
        objective: what was tuned for; `to_default` and `to_hindsight` are of this.
        seed: of the bootstrap draws, as in the summary.
    """
    window, intervals = told["window"], told["intervals"]
    values = {
        text: np.stack([run.ttft_ms[window["warmup_requests"] :] for run in runs]) for text, runs in outcomes.items()
    }
    seeds = len(next(iter(values.values())))
    drawn = resamples(seeds, window["requests"], intervals["block_requests"], intervals["draws"], seed)
    summaries = {row["policy"]: row for row in told["policies"]}
    tails = _tails(values, drawn)
    of_kind = {(each.name, each.kind): values[each.settings] for each in variants}
    tuned = [name for name, kind in of_kind if kind == "tuned"]
    against = {
        kind: _paired([(of_kind[name, "tuned"], of_kind[name, kind]) for name in tuned], objective, drawn)
        for kind in ("default", "hindsight")
    }
    rows = []
    for each in variants:
        its = tuned.index(each.name) if each.kind == "tuned" else None
        to = {kind: (None, None) if its is None else found[its] for kind, found in against.items()}
        rows.append({**_row(each, summaries[each.settings], tails[each.settings]), **_to(to)})
    return rows


def _row(variant: Variant, row: Mapping[str, Any], tail: list[float] | None) -> dict[str, Any]:
    difference = {"mean": None, "ci95": None} if row["difference"] is None else row["difference"]["ttft_ms"]
    return {
        "policy": variant.name,
        "variant": variant.kind,
        "settings": variant.settings,
        **_interval("ttft_mean", row["ttft_ms"]["mean"], row["ttft_ms"]["ci95"]),
        **_interval("ttft_p99", row["ttft_ms"]["p99"], tail),
        **_interval("ttft_difference", difference["mean"], difference["ci95"]),
        "hit_ratio": row["hit_ratio"],
        "slo_attainment": row["slo_attainment"],
        "trials_complete": variant.complete,
        "trials_pruned": variant.pruned,
        "flags": row["flags"],
    }


def _to(found: Mapping[str, tuple[float | None, Sequence[float] | None]]) -> dict[str, float | None]:
    """Say what tuning gained and what it lost to hindsight."""
    return _interval("to_default", *found["default"]) | _interval("to_hindsight", *found["hindsight"])


def _interval(name: str, value: float | None, ci95: Sequence[float] | None) -> dict[str, float | None]:
    low, high = ci95 or (None, None)
    return {f"{name}_ms": value, f"{name}_low_ms": low, f"{name}_high_ms": high}


def _tails(values: Mapping[str, Floats], drawn: Resamples) -> dict[str, list[float] | None]:
    """Return the interval of each P99; None where nobody was served, or one seed was replayed."""
    there = {text: each for text, each in values.items() if not np.isnan(each).all()}
    in_draws: Iterable[Floats] = resampled_quantiles(list(there.values()), _TAIL, drawn) if there else ()
    return {text: None for text in values} | {
        text: interval and list(interval)
        for text, interval in zip(there, (replayed_interval(each, drawn, least=0.0) for each in in_draws), strict=True)
    }


def _paired(
    pairs: Sequence[tuple[Floats, Floats]], objective: str, drawn: Resamples
) -> list[tuple[float | None, Sequence[float] | None]]:
    """Return first minus second of each pair, over requests that both served, with intervals that hold at once."""
    found: list[tuple[float | None, Sequence[float] | None]] = [(None, None)] * len(pairs)
    there = [place for place, pair in enumerate(pairs) if not np.isnan(pair[0] + pair[1]).all()]
    if not there:
        return found
    differences: list[float] = []
    in_draws: list[Floats] = []
    for one, other in (pairs[place] for place in there):
        lacking = np.isnan(one + other)
        both = [np.where(lacking, np.nan, each) for each in (one, other)]
        if objective == "mean":
            differences.append(float(np.nanmean(both[0] - both[1])))
            in_draws.append(resampled_means(both[0] - both[1], drawn))
        else:
            now = [np.quantile(each[~lacking], _TAIL) for each in both]
            differences.append(float(now[0] - now[1]))
            in_draws.append(-np.diff(resampled_quantiles(both, _TAIL, drawn), axis=0)[0])
    intervals = replayed_intervals(np.array(differences), np.stack(in_draws), drawn)
    for place, difference, interval in zip(there, differences, intervals, strict=True):
        found[place] = (difference, interval)
    return found
