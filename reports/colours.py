"""One colour and dash a policy, the same in every figure and told apart by colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["GRID", "INK", "Look", "looks"]

INK: Final = "#77828f"  # what belongs to no policy; readable on white and on black
GRID: Final = "rgba(128,128,128,0.25)"

# Okabe and Ito 2008, less black and yellow, which vanish on a dark or a white page.
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D46")
DASHES: Final = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True, slots=True)
class Look:
    """How one policy is drawn."""

    colour: str
    dash: str


def looks(policies: Iterable[str]) -> dict[str, Look]:
    """Give each policy its look by its place; after seven the colours return with another dash.

    >>> looks(["random", "lodestar"])["lodestar"]
    Look(colour='#D55E00', dash='solid')
    """
    return {
        policy: Look(PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)])
        for i, policy in enumerate(policies)
    }
