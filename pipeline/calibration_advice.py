"""What to do next with a calibrated cluster, by its verdict and by where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lodestar.pipeline.replay.calibration.stretch import TRAINING_SHARE
from lodestar.pipeline.replay.trust import Trust
from lodestar.reports.numbers import percent

__all__ = ["next_step"]


def next_step(dataset: str, trust: Trust, errors: Mapping[str, Any], profiled: bool = False) -> str:
    """Say it in words.

    Where mean TTFT and TPOT are right within the limit on what the engines were fitted to, and the error of the TTFT
    afterwards differs by more than that, the log changed: more rows of it would not help. Other errors are those of the
    engine model, or of what is inferred.

    Args:
        dataset: its name.
        trust: the verdict.
        errors: of the forced replay, on the 'fitted_part' and on what is 'held_out'.
        profiled: whether measured step times were given.

    >>> errors = {"fitted_part": {"ttft_ms": None}, "held_out": {"ttft_ms": None}}
    >>> next_step("mine", Trust("not judged", ["21 requests"], []), errors)
    'log more, ingest it and calibrate again: lodestar inspect mine says what lacks'
    """
    inspect = f"lodestar inspect {dataset}"
    if trust.verdict == "trusted":
        return f"lodestar replay {dataset} --engine-from {dataset} --policy NAME, of those in lodestar policies"
    if trust.verdict == "not judged":
        return f"log more, ingest it and calibrate again: {inspect} says what lacks"
    tell_more = f"{inspect} says what is inferred and not logged; log more of it"
    if not profiled:
        tell_more += f", or give measured step times: lodestar calibrate {dataset} --profile FILE"
    failed = [gate for gate in trust.gates if gate.name == "forced_ttft_mean_error" and not gate.passed]
    fitted, later = (errors[part].get("ttft_ms") for part in ("fitted_part", "held_out"))
    if not failed or fitted is None or later is None:
        return tell_more
    before, after, limit = fitted["mean_error"], later["mean_error"], failed[0].limit
    off = (
        f"the mean TTFT is off by {percent(before, signed=True)} % on the first {TRAINING_SHARE:.0%}, which fitted the "
        f"engines, and by {percent(after, signed=True)} % on the rest"
    )
    fits = [errors["fitted_part"].get(name) for name in ("ttft_ms", "tpot_ms")]
    if all(abs(each["mean_error"]) <= limit for each in fits if each) and abs(after - before) > limit:
        return (
            f"{off}: later latencies are not what this traffic makes of these engines. Find out what changed "
            "(settings, a slower path to the engines, other load on them), and calibrate on a log from one side of it"
        )
    return f"{off}. {tell_more}"
