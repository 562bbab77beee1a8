"""The latency predictor: a physical baseline in ms, times what trees learned of its error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.data.schema import TPOT_MS, TTFT_MS
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import Baseline

if TYPE_CHECKING:
    import lightgbm as lgb

__all__ = ["QUANTILES", "TARGETS", "LatencyModel"]

Floats = NDArray[np.float64]

TARGETS: Final = (TTFT_MS, TPOT_MS)
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Predicts ``mean_ratio * baseline_ms * exp(trees)``.

    The trees see log(latency / baseline), so they cannot run away where the load exceeds all that they were trained on:
    there they go flat, and the baseline goes on. A log residual is right in the geometric mean; `mean_ratio` (Duan's
    smearing factor) makes the prediction right in the mean, which is what a router should minimise.

    Attributes:
        target: 'ttft_ms' or 'tpot_ms'.
        features: names of the tree's inputs, in order.
        baseline: the physical part.
        booster: the trees.
        mean_ratio: mean latency over mean uncorrected prediction, on the training window.
        residual_quantiles: 'p50', 'p90', 'p99' of log(latency / prediction), on rows held out of the fit.
    """

    target: str
    features: tuple[str, ...]
    baseline: Baseline
    booster: lgb.Booster
    mean_ratio: float
    residual_quantiles: dict[str, float]

    def predict(self, features: Floats) -> Floats:
        """Return the expected latency in ms for every row of `features` (n, len(FEATURES))."""
        columns = [FEATURE_NAMES.index(name) for name in self.features]
        log_ratio = self.booster.predict(features[:, columns], num_threads=1)
        predicted: Floats = self.mean_ratio * self.baseline.predict(features) * np.exp(log_ratio)
        return predicted

    def predict_quantile(self, features: Floats, quantile: str) -> Floats:
        """Return the latency in ms that 50, 90 or 99 % stay below ('p50', 'p90', 'p99').

        The spread is the same ratio for every request: it is right over all requests, not for each kind of them.
        """
        scaled: Floats = self.predict(features) * np.exp(self.residual_quantiles[quantile])
        return scaled

    @property
    def trees(self) -> int:
        """Number of trees."""
        return int(self.booster.num_trees())

    def text(self) -> str:
        """Return the trees as LightGBM writes them."""
        text: str = self.booster.model_to_string(num_iteration=-1)
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return all but the trees, ready for JSON."""
        return {
            "target": self.target,
            "transform": "mean_ratio * baseline_ms * exp(trees)",
            "features": list(self.features),
            "baseline": self.baseline.to_dict(),
            "mean_ratio": self.mean_ratio,
            "residual_quantiles": self.residual_quantiles,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], text: str) -> LatencyModel:
        """Put together what `to_dict` and `text` returned."""
        return cls(
            target=values["target"],
            features=tuple(values["features"]),
            baseline=Baseline.from_dict(values["baseline"]),
            booster=_booster(text),
            mean_ratio=values["mean_ratio"],
            residual_quantiles=values["residual_quantiles"],
        )

    def save(self, directory: Path, name: str | None = None) -> None:
        """Write ``<name>.txt`` (trees) and ``<name>.json`` (the rest); the name is the target if none is given."""
        stem = name or self.target
        (directory / f"{stem}.txt").write_text(self.text(), encoding="utf-8")
        (directory / f"{stem}.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, name: str) -> LatencyModel:
        """Read what `save` wrote."""
        values = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
        return cls.from_dict(values, (directory / f"{name}.txt").read_text(encoding="utf-8"))


def _booster(text: str) -> lgb.Booster:
    import lightgbm as lgb  # half a second, which a replay without a model need not wait for

    try:
        return lgb.Booster(model_str=text)
    except lgb.basic.LightGBMError as error:
        raise ArtifactError(
            f"the model text cannot be read ({error}); expected LightGBM's format. Ship it again"
        ) from error
