"""Shipping and verifying an artifact, from what a user writes; verifying imports neither MLflow nor a database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lodestar.data.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Models of a log were trained on what its gateway counted.
OFFLINE: Final = {"count_uncached": False}
__all__ = ["artifact_table", "check_or_ship", "policy_of"]


def check_or_ship(
    home: Path | None,
    dataset: str | None,
    to: str | None,
    artifact: str | None,
    exports: str | None = None,
    policy: str | None = None,
    objective: str | None = None,
    ungated: bool = False,
) -> dict[str, Any]:
    """Verify the artifact at a place if one is given, else ship a dataset's models to a place."""
    if artifact is not None:
        given = {"DATASET": dataset, "--to": to, "--with": exports, "--policy": policy, "--objective": objective}
        named = [name for name, value in given.items() if value is not None] + ["--ungated"] * ungated
        if named:
            raise ConfigError(
                f"--check verifies an artifact that is there; expected no {named[0]} with it. Leave it out"
            )
        from lodestar.models.shipping.check import check

        return check(artifact)
    if dataset is None or to is None:
        raise ConfigError("ship needs DATASET and --to PLACE, or --check PLACE. Name them")
    from lodestar.data.schema import TTFT_MS
    from lodestar.data.workspace import Workspace
    from lodestar.models.shipping.ship import ship
    from lodestar.models.shipping.write import DEFAULT_POLICY

    formats = [name.strip() for name in exports.split(",")] if exports else []
    chosen = policy_of(policy or DEFAULT_POLICY["name"])
    workspace = Workspace.open(home)
    return ship(workspace, dataset, to, objective or TTFT_MS, policy=chosen, exports=formats, ungated=ungated).to_dict()


def policy_of(text: str) -> dict[str, Any]:
    """Read ``lodestar-online,key=value`` as an artifact keeps it: with all settings, so that no default moves later.

    Raises:
        ConfigError: it is not the policy that a router runs, or a setting is not known or not usable.

    >>> policy_of("lodestar-online,exploration=0.02")["settings"]["exploration"]
    0.02
    """
    from lodestar.pipeline.serve.policy import ONLINE, served_policy

    name, settings = served_policy({"policy": {"name": ONLINE, "settings": OFFLINE}}, text)
    return {"name": name, "settings": settings.to_dict()}


def artifact_table(done: dict[str, Any]) -> RenderableType:
    """Draw what was verified, or shipped and verified."""
    from lodestar.models.shipping.gate import gate_text
    from lodestar.reports.tables import sentences

    lines = {
        "place": done["place"],
        "dataset": done["dataset"],
        "version": done["version"],
        "policy": done["policy"]["name"],
        "settings": ", ".join(f"{key}={value}" for key, value in done["policy"]["settings"].items()) or "its defaults",
        "gate": gate_text(done["gate"]),
        "trees": ", ".join(f"{key} {trees}" for key, trees in done["targets"].items()),
        "golden rows": str(done["golden_rows"]),
    }
    lines |= {f"export {name}": found["said"] for name, found in done["exports"].items()}
    if "registered" not in done:
        trained = "" if done["trained_at_s"] is None else _time(done["trained_at_s"])
        return sentences("Artifact verified", lines | ({"trained at": trained} if trained else {}))
    named = {target: name for target, name in done["registered"].items() if name}
    lines["registry"] = f"{', '.join(named.values())}: called shipped now" if named else "none of these is registered"
    return sentences("Artifact shipped and verified", lines)


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")
