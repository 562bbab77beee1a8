"""Whether a new model may replace the current one: only if it is no worse on the newest requests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from lodestar.models.current import Trained
from lodestar.models.latency import LatencyModel
from lodestar.models.metrics import mae_ms
from lodestar.models.rows import Rows

__all__ = ["MIN_NEWEST", "Verdict", "judge"]

MIN_NEWEST: Final = 30  # rows below which the comparison would be a coin toss


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison behind a promotion or a refusal.

    Attributes:
        promoted: whether the new model is the current one now.
        reason: in words.
        rows: newest rows that neither of the two had seen.
        mae_ms: of the new model on them.
        current_mae_ms: of the model that it was to replace.
    """

    promoted: bool
    reason: str
    rows: int = 0
    mae_ms: float | None = None
    current_mae_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def judge(challenger: LatencyModel, held_out: Rows, current: Trained | None) -> Verdict:
    """Compare by mean absolute error on rows that neither model has seen.

    The current model itself is measured where enough of the rows are newer than it; else (the same data again) its
    twin that was fitted without the newest requests is.
    """
    if current is None:
        return Verdict(True, "no model that it could be compared with")
    unseen, champion = held_out.newer_than(current.record["requests_seen"]), current.model
    if len(unseen) < MIN_NEWEST:
        unseen, champion = held_out.newer_than(current.record["held_out_from"]), current.held_out
    if len(unseen) < MIN_NEWEST:
        return Verdict(True, f"only {len(unseen)} requests are new to both models: not compared", len(unseen))
    ours = mae_ms(unseen.latency_ms, challenger.predict(unseen.features))
    theirs = mae_ms(unseen.latency_ms, champion.predict(unseen.features))
    promoted = ours <= theirs
    words = "no worse" if promoted else "worse"
    reason = (
        f"{words} than the current model on the newest {len(unseen)} requests: MAE {ours:.1f} against {theirs:.1f} ms"
    )
    return Verdict(promoted, reason, len(unseen), ours, theirs)
