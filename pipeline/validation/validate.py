"""The whole validation: each part scores what Lodestar says where the truth is known."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown
from lodestar.pipeline.estimation.json_ready import json_ready
from lodestar.pipeline.replay.parallel import cores
from lodestar.reports.validation_page import page
from lodestar.reports.validation_picture import picture

__all__ = ["PARTS", "Effort", "validate", "write_document"]

Progress = Callable[[str, int, int], None]

_FIGURES: Final = 5  # more than another machine gives again
_PAGE, _PICTURE, _DATA = "validation.md", "validation.svg", "validation.json"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of everything.

    Attributes:
        requests: of the queueing world.
        seeds: of every run there.
        trials: of the load-balancing world.
        logs: of each of the replay's own worlds.
        arms: clusters with measured arms.
        repetitions: of each setting of coverage.
        replayed: repetitions of each replayed world of coverage.
        all_worlds: whether coverage looks at all replayed worlds, those beyond its limits too.
        scored: repetitions of each setting of tails, of several routers, and of tests of two.
    """

    requests: int = 100_000
    seeds: int = 20
    trials: int = 2
    logs: int = 3
    arms: tuple[str, ...] = ("sharing09", "sharing47", "aibrix")
    repetitions: int = 1000
    replayed: int = 300
    all_worlds: bool = True
    scored: int = 300

    @classmethod
    def quick(cls) -> Effort:
        """Return what is done in a few minutes."""
        return cls(20_000, 6, 1, 1, ("sharing09",), 300, 60, False, 20)


def validate(
    parts: Sequence[str] | None,
    effort: Effort,
    traces: Path | None,
    seed: int,
    command: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the named parts, and return what each found, with the seconds that it took.

    Args:
        parts: of `PARTS`; None: all.
        effort: how much of each.
        traces: folder of real logs; None: where `measured_arms` looks.
        seed: of everything.
        command: that makes this document again.
        progress: told what is done.

    Raises:
        ConfigError: no such part, or `measured-arms` or a folder for it is named, and no log is there.
    """
    for part in parts or ():
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    if (parts or traces) and (not parts or "measured-arms" in parts):
        _refuse_without_logs(effort, traces)
    found: dict[str, Any] = {"command": command, "seed": seed, "cores": cores(), "seconds": {}}
    for part in (each for each in PARTS if not parts or each in parts):
        began = time.perf_counter()
        found[part] = PARTS[part](effort, traces, seed, progress)
        found["seconds"][part] = time.perf_counter() - began
    return dict(_rounded(json_ready(found)))


def _refuse_without_logs(effort: Effort, traces: Path | None) -> None:
    """Refuse a part that was asked for, or given a folder, and could look at nothing."""
    from lodestar.pipeline.validation.measured_arms import traces_folder, why_not

    reasons = [why_not(traces or traces_folder(), cluster) for cluster in effort.arms]
    if reasons and all(reasons):
        raise ConfigError(f"measured-arms has no logs to look at: {reasons[0]}")


def write_document(document: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write the page, the picture and all of the numbers; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        _PAGE: page(document),
        _PICTURE: picture(document),
        _DATA: _json(document),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: str(folder / name) for name in texts}


def _json(document: Mapping[str, Any]) -> str:
    """Write one line a part, so that a change of one shows as such."""
    lines = (f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in document.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _queueing(effort: Effort, traces: Path | None, seed: int, progress: Progress | None) -> dict[str, Any]:
    from lodestar.pipeline.validation.scoreboard import queueing_scoreboard

    return queueing_scoreboard(effort.requests, effort.seeds, seed, progress).to_dict()


def _load_balancing(effort: Effort, traces: Path | None, seed: int, progress: Progress | None) -> dict[str, Any]:
    from lodestar.pipeline.validation.worlds.load_balancing import load_balancing_scoreboard

    return load_balancing_scoreboard(seeds=effort.trials, seed=seed, progress=progress)


def _own_logs(effort: Effort, traces: Path | None, seed: int, progress: Progress | None) -> dict[str, Any]:
    from lodestar.pipeline.validation.own_logs import own_logs

    return own_logs(logs=effort.logs, seed=seed, progress=progress)


def _measured_arms(effort: Effort, traces: Path | None, seed: int, progress: Progress | None) -> dict[str, Any]:
    from lodestar.pipeline.validation.measured_arms import measured_arms

    return measured_arms(traces, effort.arms, seed=seed, progress=progress)


def _coverage(effort: Effort, traces: Path | None, seed: int, progress: Progress | None) -> dict[str, Any]:
    from lodestar.pipeline.validation.beyond_coverage import beyond_coverage
    from lodestar.pipeline.validation.compared_coverage import compared_coverage
    from lodestar.pipeline.validation.coverage import coverage_table
    from lodestar.pipeline.validation.mixed_coverage import mixed_coverage
    from lodestar.pipeline.validation.replayed_coverage import replayed_coverage
    from lodestar.pipeline.validation.replayed_logs import LIMITS, WORLDS
    from lodestar.pipeline.validation.tails_coverage import tails_coverage
    from lodestar.pipeline.validation.tuned_coverage import tuned_coverage

    def replayed(worlds: Sequence[Any]) -> list[dict[str, Any]]:
        return [row.to_dict() for row in replayed_coverage(effort.replayed, seed, progress, worlds)]

    return {
        "bandits": [row.to_dict() for row in coverage_table(effort.repetitions, seed, progress)],
        "tuned": [row.to_dict() for row in tuned_coverage(effort.repetitions, seed, progress)],
        "compared": [row.to_dict() for row in compared_coverage(effort.repetitions, seed, progress)],
        "replayed": replayed(WORLDS if effort.all_worlds else WORLDS[:1]),
        "limits": replayed(LIMITS) if effort.all_worlds else [],
        "tails": [row.to_dict() for row in tails_coverage(effort.scored, seed, progress)],
        "several-routers": [row.to_dict() for row in mixed_coverage(effort.scored, seed, progress)],
        "beyond": [row.to_dict() for row in beyond_coverage(effort.scored, seed, progress)],
    }


#: Name → what runs it.
PARTS: Final[dict[str, Callable[[Effort, Path | None, int, Progress | None], dict[str, Any]]]] = {
    "queueing": _queueing,
    "load-balancing": _load_balancing,
    "own-logs": _own_logs,
    "measured-arms": _measured_arms,
    "coverage": _coverage,
}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.{_FIGURES}g}") if isinstance(value, float) else value
