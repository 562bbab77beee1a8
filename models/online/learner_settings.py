"""When an online router learns, and how much it keeps: settings alone, which import no trees."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LearnerSettings"]


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """When to learn, and what is kept to learn from.

    Attributes:
        first_fit_requests: finished requests before the first model.
        refit_requests: new ones that make a refit due.
        refit_s: time after which any new ones do; 0: time alone never does.
        drift: whether a change of the mean log error, found by ADWIN, makes one due at once. Where the model of that
            refit is found wrong again, what was measured before is forgotten.
        recent_requests: the newest ones, all kept.
        diverse_requests: older ones, kept for their variety.
    """

    first_fit_requests: int = 200
    refit_requests: int = 1000
    refit_s: float = 60.0
    drift: bool = True
    recent_requests: int = 5000
    diverse_requests: int = 1000
