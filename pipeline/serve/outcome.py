"""What came of a request."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request.

    Attributes:
        request_id: of the request, or of the decision where the caller named none.
        chosen: the instance that served it; None: the one that was decided.
        ttft_ms: NaN where not known, as the next two.
        tpot_ms: per output token after the first.
        e2e_ms: to the last token.
        output_tokens: -1 where not known.
        status: 'ok', 'cancelled', 'timeout' or 'error'.
    """

    request_id: str
    chosen: str | None
    ttft_ms: float
    tpot_ms: float
    e2e_ms: float
    output_tokens: int
    status: str = "ok"
