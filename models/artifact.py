"""What a router loads: text models, a manifest and golden rows, verified byte by byte and number by number.

A router first runs `check` on the place (or ``lodestar ship --check``), then loads it::

    decider = Decider.load("artifact.tar")     # every byte is verified again; no LightGBM
    ttft_ms = decider.predict(prompt_tokens, snapshot)["ttft_ms"].mean_ms  # one number a candidate

A place is a directory, a ``.tar``, or the URL of either. `load_artifact` returns the models with LightGBM behind them,
for evaluation; `lodestar.features.definitions.candidate_features` makes the rows that they take. The page
docs/artifact.md says what is in an artifact.
"""

from __future__ import annotations

from lodestar.models.seal import SCHEMA_VERSION, read_sealed
from lodestar.models.serving import Decider
from lodestar.models.shipping.check import check, check_in_fresh_process, load_artifact
from lodestar.models.shipping.opened import open_artifact
from lodestar.models.shipping.ship import ShipReport, ship
from lodestar.models.shipping.write import write_artifact

__all__ = [
    "SCHEMA_VERSION",
    "Decider",
    "ShipReport",
    "check",
    "check_in_fresh_process",
    "load_artifact",
    "open_artifact",
    "read_sealed",
    "ship",
    "write_artifact",
]
