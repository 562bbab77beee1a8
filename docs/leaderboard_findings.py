"""What the ranking says, in sentences that are worked out from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import polars as pl
from leaderboard_ranking import VARIANTS, Place, Standing, cells_of, geometric_mean, interval, standings
from leaderboard_runs import REFERENCE

__all__ = ["findings"]

_COLLAPSE = 10.0  # times the reference in some cell
_PLAIN = ("least-request", "random")


def findings(frame: pl.DataFrame) -> list[str]:
    """Return the sentences, one a bullet."""
    places = cells_of(frame)
    every = {standing.policy: standing for standing in standings(frame)}
    ranked = [standing for standing in every.values() if standing.ranked]
    said = [*_first(ranked, places), *_learned(ranked, places), *_reference(ranked, frame), *_plain(every, ranked)]
    return [*said, *_fleets(ranked, places), *_collapses(ranked), *_limits(ranked, every, frame)]


def names(of: Iterable[str]) -> str:
    """Write a list.

    >>> names(["a", "b", "c"])
    '`a`, `b` and `c`'
    """
    quoted = [f"`{name}`" for name in of]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _first(ranked: Sequence[Standing], places: Sequence[Place]) -> Iterator[str]:
    first = ranked[0]
    low, high = interval(first.mean["tuned"], places)
    near = [other.policy for other in ranked[1:] if _low(other, first, places) <= 1]
    yield (
        f"`{first.policy}` leads: {first.score:.2f} times the mean TTFT of `{REFERENCE}` ({low:.2f}–{high:.2f}). "
        + (
            f"Not to be told from it, cell by cell: {names(near)}."
            if near
            else "All others are behind it by more than chance."
        )
    )


def _learned(ranked: Sequence[Standing], places: Sequence[Place]) -> Iterator[str]:
    best = next((standing for standing in ranked if standing.mark == "learned"), None)
    if best is None:
        return
    ahead = [standing for standing in ranked[: ranked.index(best)] if standing.mark == ""]
    untuned = [each for each in ahead if geometric_mean(each.mean["default"]) < best.score]
    if ahead:
        sure = [each.policy for each in ahead if _low(best, each, places) > 1]
        told = f"`{best.policy}` ({best.score:.2f}), the best learned policy, stands behind rules without a model: "
        told += names(each.policy for each in ahead)
        told += f"; with their defaults behind {names(each.policy for each in untuned)}" if untuned else ""
        yield told + (f". The distance is beyond chance for {names(sure)}." if sure else ". All within chance.")
    else:
        rule = next(standing for standing in ranked if standing.mark == "")
        chance = "beyond" if _low(rule, best, places) > 1 else "within"
        yield (
            f"The best learned policy, `{best.policy}` ({best.score:.2f}), stands before all rules; the best of them, "
            f"`{rule.policy}`, needs {geometric_mean(rule.mean['tuned'] / best.mean['tuned']):.2f} times its TTFT, "
            f"which is {chance} chance."
        )


def _reference(ranked: Sequence[Standing], frame: pl.DataFrame) -> Iterator[str]:
    reference = next(standing for standing in ranked if standing.policy == REFERENCE)
    by_default = sorted(ranked, key=lambda standing: geometric_mean(standing.mean["default"]))
    place = by_default.index(reference) + 1
    plain = next((standing for standing in ranked if standing.policy == "least-request"), reference)
    loses = int(np.sum(plain.mean["default"] < 1))
    yield (
        f"The paper's baseline, `{REFERENCE}`, is number {place} of {len(ranked)} with defaults, and slower than plain "
        f"`least-request` in {loses} of {len(cells_of(frame))} cells. Tuning takes it to {reference.score:.2f}."
    )


def _plain(every: dict[str, Standing], ranked: Sequence[Standing]) -> Iterator[str]:
    """Name the published rules that plain ones beat."""
    published = [standing for standing in ranked if standing.policy not in _PLAIN and standing.mark != "session"]
    for plain in (every[name] for name in _PLAIN if name in every):
        lost = {
            variant: [each.policy for each in published if geometric_mean(each.mean[variant]) > plain.score]
            for variant in VARIANTS
        }
        if lost["default"]:
            still = f"; tuned, still {names(lost['tuned'])}" if lost["tuned"] else "; tuned, none"
            told = names(lost["default"])
            yield f"With their defaults, slower than plain `{plain.policy}` ({plain.score:.2f}): {told}{still}."


def _fleets(ranked: Sequence[Standing], places: Sequence[Place]) -> Iterator[str]:
    fleet = np.array([place[1] for place in places])
    if len(set(fleet)) < 2:
        return
    one, other = dict.fromkeys(fleet.tolist())
    orders = []
    for on in (one, other):
        means = {standing.policy: geometric_mean(standing.mean["tuned"][fleet == on]) for standing in ranked}
        orders.append(sorted(means, key=means.__getitem__))
    moved = {policy: orders[1].index(policy) - orders[0].index(policy) for policy in orders[0]}
    if down := [policy for policy, by in sorted(moved.items(), key=lambda each: -each[1])[:3] if by > 0]:
        told = ", ".join(f"`{policy}` by {moved[policy]} places" for policy in down)
        yield f"From the {one} to the {other} fleet lose most: {told}."


def _collapses(ranked: Sequence[Standing]) -> Iterator[str]:
    herds = [each for each in ranked if each.mean["default"].max() > _COLLAPSE]
    if herds:
        told = ", ".join(f"`{each.policy}` (up to {each.mean['default'].max():,.0f} times)" for each in herds)
        mended = [each.policy for each in herds if each.mean["tuned"].max() <= _COLLAPSE]
        yield (
            f"With its defaults more than {_COLLAPSE:.0f} times the baseline's TTFT in some cell: {told}. "
            + (f"Tuning mends {names(mended)}." if mended else "Tuning mends none.")
        )


def _limits(ranked: Sequence[Standing], every: dict[str, Standing], frame: pl.DataFrame) -> Iterator[str]:
    first = ranked[0]
    for other in (standing for standing in every.values() if not standing.ranked):
        ratio = geometric_mean(other.mean["default"] / first.mean["tuned"])
        slower = int(np.sum(other.mean["default"] > first.mean["tuned"]))
        knows = "asks the engines themselves" if other.mark == "oracle" else "knows the engines' coefficients"
        yield (
            f"`{other.policy}`, which {knows}, needs {ratio:.2f} times the leader's TTFT. It is greedy, and no bound: "
            f"in {slower} of {len(first.mean['tuned'])} cells the leader is faster."
        )
    bound = frame.unique(["workload", "fleet", "load"], maintain_order=True)["bound_mean_ms"].to_numpy()
    of_reference = frame.filter((pl.col("policy") == REFERENCE) & (pl.col("variant") == "default"))
    away = geometric_mean(first.mean["tuned"] * of_reference["ttft_mean_ms"].to_numpy() / bound)
    yield (
        f"The leader needs {away:.2f} times the lower bound, which no router can reach where there are queues. No "
        "request of any policy was answered sooner than the bound allows."
    )


def _low(one: Standing, other: Standing, places: Sequence[Place]) -> float:
    """Return the lower end of the interval of the ratio of two policies, cell by cell."""
    return interval(one.mean["tuned"] / other.mean["tuned"], places)[0]
