"""The table of rank probabilities: how sure the order of the policies is."""

from __future__ import annotations

from typing import Final

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import number, percent
from lodestar.reports.result import Result

__all__ = ["ranks_grid"]

MOST_RANKS: Final = 5  # what a terminal has room for; the last column holds all later ones
ORDINALS: Final = {1: "1st", 2: "2nd", 3: "3rd"}


def ranks_grid(result: Result) -> Grid:
    """Return one row a policy and one column a rank, in percent of the bootstrap draws."""
    rows = result.get("ranks") or []
    ranks = len(rows)
    shown = ranks if ranks <= MOST_RANKS + 1 else MOST_RANKS
    shares = [[row["by_ttft_mean"][rank] for row in rows] for rank in range(shown)]
    headed = {_ordinal(rank + 1): share for rank, share in enumerate(shares)}
    if shown < ranks:
        headed["later"] = [sum(row["by_ttft_mean"][shown:]) for row in rows]
    columns = [
        Column("policy", "", [Cell(row["policy"], note=result["trust"]["verdict"]) for row in rows], left=True),
        *(Column(rank, "%", [_share(share, rank == "1st") for share in each]) for rank, each in headed.items()),
        Column("best P99", "%", [_share(row["first_by_ttft_p99"], True) for row in rows]),
    ]
    return Grid(f"Rank by mean TTFT, {result['estimand']}, {result['trust']['verdict']}", columns, _notes(result))


def _notes(result: Result) -> list[str]:
    """Say what a share is a share of."""
    draws = result.get("intervals")
    of = f"{number(draws['draws'])} bootstrap draws" if draws else "bootstrap draws"
    return [
        f"Share of {of} of seeds and blocks of requests in which a policy has this rank, over the requests that have a "
        "TTFT under every policy; best P99: has the least P99 TTFT. It counts neither how far the engine model is off "
        "nor how little few seeds tell: where the interval of a difference holds 0, the order is open."
    ]


def _ordinal(rank: int) -> str:
    return ORDINALS.get(rank, f"{rank}th")


def _share(share: float, is_first: bool) -> Cell:
    return Cell(percent(share), mark="best" if is_first and share > 0.5 else "")
