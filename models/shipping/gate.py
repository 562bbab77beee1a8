"""What the promotion gate said of the models that are shipped, and how they came to be in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lodestar.data.errors import ConfigError
from lodestar.models.registry.version_index import Index, times

__all__ = ["NOT_RUN", "gate_of", "gate_text", "passed_all", "require_passed"]

Gate = dict[str, Any]

NOT_RUN: Final = "the gate was not run"


def gate_of(index: Index) -> dict[str, Gate]:
    """Return target → what the gate said of the version in use, ready for JSON.

    'passed' (None where the gate was not run), 'said' (in words), 'version', 'in_use' ('promoted by the gate',
    'promoted by hand' or 'rolled back') and 'since'; where the gate was run, 'rows' that it measured, 'checks' and
    'mae_ms', as in `lodestar.models.registry.promotion.Verdict`.
    """
    return {target: _of(index, target, version) for target, version in index.champions.items()}


def require_passed(dataset: str, gate: Mapping[str, Gate]) -> None:
    """Refuse models that the gate did not pass.

    Raises:
        ConfigError: it names the first of them, and how to ship it all the same.
    """
    for target, found in gate.items():
        if found["passed"] is not True:
            raise ConfigError(
                f"the {target} model {found['version']} of {dataset!r} is {found['in_use']} and did not pass the "
                f"promotion gate: {_short(found)}; expected one that passed. "
                f"See lodestar models show {dataset} {found['version']}; to ship it all the same, add --ungated"
            )


def passed_all(gate: Mapping[str, Gate]) -> bool:
    """Say whether the gate passed every model.

    >>> passed_all({"ttft_ms": {"passed": True}, "tpot_ms": {"passed": None}})
    False
    """
    return bool(gate) and all(found["passed"] is True for found in gate.values())


def gate_text(gate: Mapping[str, Gate]) -> str:
    """Say in a line what the gate said.

    >>> gate_text({"ttft_ms": {"passed": True}, "tpot_ms": {"passed": None, "said": NOT_RUN}})
    'ttft_ms passed; tpot_ms did not pass: the gate was not run'
    """
    words = [
        f"{key} passed" if found["passed"] else f"{key} did not pass: {_short(found)}" for key, found in gate.items()
    ]
    return "; ".join(words) or NOT_RUN


def _of(index: Index, target: str, version: str) -> Gate:
    entry = index.find(version)
    verdict = entry["targets"][target].get("verdict") if entry else None
    span = times(index, version, target)[-1]
    found = {"passed": None, "said": NOT_RUN, "version": version, "in_use": span["why"], "since": span["from"]}
    if verdict is None:
        return found
    return found | {
        "passed": bool(verdict["promoted"]),
        "said": verdict["reason"],
        "rows": verdict["rows"],
        "checks": [dict(check) for check in verdict["checks"]],
        "mae_ms": verdict["mae_ms"],
    }


def _short(found: Gate) -> str:
    """Name the checks that failed; the whole reason where none was made."""
    failed = [check["name"] for check in found.get("checks", ()) if check["passed"] is False]
    return f"it failed at {', '.join(failed)}" if failed else str(found["said"])
