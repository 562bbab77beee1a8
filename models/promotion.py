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
CHANGED: Final = " (the dataset's history has changed: the current model may have seen some of them)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison behind a promotion or a refusal.

    Attributes:
        promoted: whether the new model is the current one now.
        reason: in words.
        rows: newest rows that they were compared on.
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


def judge(challenger: LatencyModel, held_out: Rows, current: Trained | None, same_history: bool = True) -> Verdict:
    """Compare by mean absolute error on rows that neither model has seen.

    The current model itself is measured where enough of the rows are newer than it; else (the same data again) its
    twin that was fitted without the newest requests is. Without the `same_history` (the dataset no longer begins with
    the requests that the current model has seen) nothing tells which rows are new to it: it is measured on all of them,
    which can only favour it, and the verdict says so.
    """
    if current is None:
        return Verdict(True, "no model that it could be compared with")
    rows, champion, doubt = _comparable(held_out, current) if same_history else (held_out, current.model, CHANGED)
    if len(rows) < MIN_NEWEST:
        few = f"only {len(rows)} requests {'are new to both models' if same_history else 'are held out'}"
        return Verdict(True, f"{few}: not compared", len(rows))
    ours = mae_ms(rows.latency_ms, challenger.predict(rows.features))
    theirs = mae_ms(rows.latency_ms, champion.predict(rows.features))
    promoted = ours <= theirs
    words = "no worse" if promoted else "worse"
    reason = (
        f"{words} than the current model on the newest {len(rows)} requests: MAE {ours:.1f} against {theirs:.1f} ms"
    )
    return Verdict(promoted, reason + doubt, len(rows), ours, theirs)


def _comparable(held_out: Rows, current: Trained) -> tuple[Rows, LatencyModel, str]:
    unseen = held_out.newer_than(current.record["requests_seen"])
    if len(unseen) >= MIN_NEWEST:
        return unseen, current.model, ""
    return held_out.newer_than(current.record["held_out_from"]), current.held_out, ""
