"""From the cells of the leaderboard to a ranking, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from leaderboard_runs import NOT_RANKED, REFERENCE
from numpy.typing import NDArray

from lodestar.pipeline.estimation.intervals.block_bootstrap import expanded_interval
from lodestar.reports.headline import geometric_mean

__all__ = ["CELL", "VARIANTS", "Standing", "cells_of", "geometric_mean", "interval", "standings"]

CELL: Final = ("workload", "fleet", "load")
VARIANTS: Final = ("default", "tuned")
_DRAWS: Final = 4000

Floats = NDArray[np.float64]
Place = tuple[str, str, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of a policy in every cell; of one without settings, tuned is as default.

    Attributes:
        mark: 'learned', 'session' (it needs sessions), 'engines' (it knows the simulated ones), 'oracle', or nothing.
        searched: whether it has settings to search.
        mean: variant → mean TTFT of each cell, over that of the reference with its defaults.
        p99: the same of the 99th percentile.
        won: variant → share of the cells where it is the fastest, or not to be told from it.
    """

    policy: str
    mark: str
    searched: bool
    mean: dict[str, Floats]
    p99: dict[str, Floats]
    won: dict[str, float]

    @property
    def ranked(self) -> bool:
        """Say whether it plays by the rules of a router."""
        return self.mark not in NOT_RANKED

    @property
    def score(self) -> float:
        """What it is ranked by."""
        return geometric_mean(self.mean["tuned"])


def cells_of(frame: pl.DataFrame) -> list[Place]:
    """Return the cells in the order in which the frame has them."""
    return frame.select(CELL).unique(maintain_order=True).rows()


def standings(frame: pl.DataFrame) -> list[Standing]:
    """Rank the policies of a frame, the best first."""
    reference = frame.filter((pl.col("policy") == REFERENCE) & (pl.col("variant") == "default"))
    told = frame.join(reference.select(*CELL, mean="ttft_mean_ms", p99="ttft_p99_ms"), on=CELL, maintain_order="left")
    told = told.with_columns(mean=pl.col("ttft_mean_ms") / pl.col("mean"), p99=pl.col("ttft_p99_ms") / pl.col("p99"))
    found = []
    for (policy, mark), its in told.group_by(["policy", "mark"], maintain_order=True):
        searched = "tuned" in its["variant"]
        of = {each: its.filter(pl.col("variant") == (each if searched else "default")) for each in VARIANTS}
        found.append(
            Standing(
                str(policy),
                str(mark or ""),
                searched,
                {each: rows["mean"].to_numpy() for each, rows in of.items()},
                {each: rows["p99"].to_numpy() for each, rows in of.items()},
                {each: float(np.mean(rows["won"].to_numpy())) for each, rows in of.items()},
            )
        )
    return sorted(found, key=lambda standing: standing.score)


def interval(ratios: Floats, places: Sequence[Place]) -> tuple[float, float]:
    """Return the 95 % interval of a geometric mean over workloads and fleets like these.

    A bootstrap draws pairs of workload and fleet, each with all its loads: loads of one pair go up and down together.
    """
    pairs = list(dict.fromkeys(place[:2] for place in places))
    logs = np.array(
        [np.mean([np.log(ratio) for ratio, place in zip(ratios, places, strict=True) if place[:2] == pair])
         for pair in pairs]
    )  # fmt: skip
    taken = np.random.default_rng(0).integers(0, len(pairs), (_DRAWS, len(pairs)))
    low, high = expanded_interval(logs[taken].mean(axis=1), len(pairs))
    return float(np.exp(low)), float(np.exp(high))
