"""Logs of two routers against a known truth: each decision by its own propensity, or by the mean of both."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.blocks import block_of
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.replay.estimates.mixed_loggers import mixed_estimates
from lodestar.pipeline.validation.scored import Answer, Progress, Scored, scored
from lodestar.pipeline.validation.square_logs import drawn, square_log

__all__ = ["mixed_coverage"]

Floats = NDArray[np.float64]

_CANDIDATES, _DECISIONS = 8, 2000
_LEAST, _SPREAD, _NOISE = 0.45, 0.25, 0.3  # a cost is least + spread · u ± noise, u in 0 to 1
#: Name → of each router, how much it likes the first four candidates, and what the policy takes.
_SETTINGS: Final = {"even and averse": ((0.0, 0.0), (0.0, -1.5)), "two halves": ((1.5, 0.0), (-1.5, 0.0))}


def mixed_coverage(repetitions: int = 300, seed: int = 0, progress: Progress | None = None) -> list[Scored]:
    """Score snipw and dr, weighted and balanced, on logs that a coin gave to one of two routers.

    2000 decisions of 8 candidates, of which the policy takes the cheapest; the least of 8 uniform numbers is 1/9 on
    average, which gives the truth. In one setting a router is even and the other shuns what the policy takes; in the
    other, each prefers its own half of the candidates. The model sees half of the differences.

    Args:
        repetitions: logs a setting.
        seed: of the logs.
        progress: told what is done, how much of it, and of how much.
    """
    truth, found = _LEAST + _SPREAD / (_CANDIDATES + 1), []
    for place, (setting, likes) in enumerate(_SETTINGS.items()):
        answers: dict[str, list[Answer | None]] = defaultdict(list)
        for done in range(repetitions):
            rows, probabilities = _logged(10_000_000 * seed + done, likes)
            block = block_of(_DECISIONS)
            plain = [estimate(rows, "", name, block).to_dict() for name in ("snipw", "dr")]
            for each in plain + mixed_estimates(rows, "", block, probabilities)[0]:
                answers[each["estimator"]].append(Answer(each["value_ms"], *each["ci95_ms"]))
            if progress:
                progress("several routers", place * repetitions + done + 1, len(_SETTINGS) * repetitions)
        found += [scored(setting, name, each, truth) for name, each in answers.items()]
    return found


def _logged(seed: int, likes: tuple[tuple[float, float], ...]) -> tuple[OneStepInput, Floats]:
    """Return a log with the policy, and the probability that each router would have made each choice."""
    random, rows = np.random.default_rng(seed), np.arange(_DECISIONS)
    expected = _LEAST + _SPREAD * random.random((_DECISIONS, _CANDIDATES))
    cheapest = expected == expected.min(axis=1)[:, None]
    first = np.arange(_CANDIDATES) < _CANDIDATES // 2
    raised = np.stack([np.exp(half * first + best * cheapest) for half, best in likes])
    logging = raised / raised.sum(axis=2, keepdims=True)
    logger = random.integers(0, len(likes), _DECISIONS)
    own = logging[logger, rows]
    column = drawn(random, own)
    cost = expected[rows, column] + random.uniform(-_NOISE, _NOISE, _DECISIONS)
    log = replace(square_log(cost, column, own), logger=logger)
    predicted = (0.5 * expected + 0.35).ravel()
    return OneStepInput(log, cheapest.astype(np.float64).ravel(), predicted), logging[:, rows, column]
