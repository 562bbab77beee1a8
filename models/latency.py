"""The latency predictor: a physical baseline in ms, times what trees learned of its error."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.data.schema import E2E_MS, TPOT_MS, TTFT_MS
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import Baseline
from lodestar.models.slices import load_slice
from lodestar.models.uncertainty.conformal import QUANTILES, Conformal
from lodestar.models.uncertainty.heads import HEAD_OF, quantile_log_ratios

if TYPE_CHECKING:
    import lightgbm as lgb

__all__ = ["QUANTILES", "TARGETS", "LatencyModel", "require_inputs"]

Floats = NDArray[np.float64]

TARGETS: Final = (TTFT_MS, TPOT_MS, E2E_MS)


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Predicts the mean as ``mean_ratio * baseline_ms * exp(trees)``, and quantiles by heads of their own.

    The trees see log(latency / baseline), so they cannot run away where the load exceeds all that they were trained on:
    there they go flat, and the baseline goes on. A log residual is right in the geometric mean; `mean_ratio` (Duan's
    smearing factor) makes the prediction right in the mean, which is what a router should minimise.

    Attributes:
        target: 'ttft_ms', 'tpot_ms' or 'e2e_ms'.
        features: names of the trees' inputs, in order.
        baseline: the physical part.
        booster: the trees.
        mean_ratio: mean latency over mean uncorrected prediction, on the training window.
        heads: quantile → trees for that quantile of log(latency / baseline); see `heads`.
        conformal: what the heads are corrected by, as measured on rows that they had not seen.
    """

    target: str
    features: tuple[str, ...]
    baseline: Baseline
    booster: lgb.Booster
    mean_ratio: float
    heads: dict[str, lgb.Booster] = field(default_factory=dict)
    conformal: Conformal = field(default_factory=Conformal.fresh)

    def predict(self, features: Floats) -> Floats:
        """Return the expected latency in ms for every row of `features` (n, len(FEATURES))."""
        log_ratio = np.asarray(self.booster.predict(features[:, self._columns()], num_threads=1))
        predicted: Floats = self.mean_ratio * self.baseline.predict(features) * np.exp(log_ratio)
        return predicted

    def predict_quantile(self, features: Floats, quantile: str) -> Floats:
        """Return the latency in ms that 50, 90 or 99 % stay below ('p50', 'p90', 'p99')."""
        return self.predict_quantiles(features)[:, list(QUANTILES).index(quantile)]

    def predict_quantiles(self, features: Floats) -> Floats:
        """Return the latency in ms at each of `QUANTILES` for every row, shape (n, 3); they never cross.

        ``baseline_ms * exp(head + offset of the row's load slice)``, then the running maximum from the lowest on.
        """
        corrected = self.raw_log_quantiles(features) + self.conformal.offsets(load_slice(features))
        return np.asarray(np.exp(np.maximum.accumulate(corrected, axis=1)))

    def raw_log_quantiles(self, features: Floats) -> Floats:
        """Return the logarithm of each quantile in ms before the conformal correction, shape (n, 3)."""
        ratios = quantile_log_ratios(self.booster, self.heads, features[:, self._columns()])
        return np.log(self.baseline.predict(features))[:, None] + ratios

    def _columns(self) -> list[int]:
        return [FEATURE_NAMES.index(name) for name in self.features]

    @property
    def trees(self) -> int:
        """Number of trees of the mean."""
        return int(self.booster.num_trees())

    def text(self) -> str:
        """Return the trees of the mean as LightGBM writes them."""
        return _text(self.booster)

    def texts(self) -> dict[str, str]:
        """Return all trees as LightGBM writes them: '' → those of the mean, quantile → those of its head."""
        return {"": self.text()} | {name: _text(head) for name, head in self.heads.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return all but the trees, ready for JSON."""
        return {
            "target": self.target,
            "transform": "mean_ratio * baseline_ms * exp(trees)",
            "quantile_transform": "running maximum of baseline_ms * exp(shape + conformal offset of the load slice)",
            "quantile_shapes": {name: HEAD_OF[name] or "mean" for name in QUANTILES},
            "features": list(self.features),
            "baseline": self.baseline.to_dict(),
            "mean_ratio": self.mean_ratio,
            "heads": list(self.heads),
            "conformal": self.conformal.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], texts: dict[str, str]) -> LatencyModel:
        """Put together what `to_dict` and `texts` returned.

        Raises:
            ArtifactError: trees cannot be read, or were grown on other inputs than the JSON names, or in another order.
        """
        features = tuple(values["features"])
        return cls(
            target=values["target"],
            features=features,
            baseline=Baseline.from_dict(values["baseline"]),
            booster=_booster(texts[""], features),
            mean_ratio=values["mean_ratio"],
            heads={name: _booster(texts[name], features) for name in values["heads"]},
            conformal=Conformal.from_dict(values["conformal"]),
        )

    def save(self, directory: Path, name: str | None = None) -> None:
        """Write ``<name>.txt`` and ``<name>.<quantile>.txt`` (trees) and ``<name>.json`` (the rest).

        The name is the target if none is given.
        """
        stem = name or self.target
        self.save_trees(directory, stem)
        (directory / f"{stem}.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def save_trees(self, directory: Path, stem: str) -> None:
        """Write the trees alone."""
        for quantile, text in self.texts().items():
            (directory / _file(stem, quantile)).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, name: str) -> LatencyModel:
        """Read what `save` wrote."""
        return cls.read(directory, name, json.loads((directory / f"{name}.json").read_text(encoding="utf-8")))

    @classmethod
    def read(cls, directory: Path, name: str, values: dict[str, Any]) -> LatencyModel:
        """Read the trees that `save` wrote, and put them together with `values`, which `to_dict` returned."""
        stems = ["", *values["heads"]]
        return cls.from_dict(values, {q: (directory / _file(name, q)).read_text(encoding="utf-8") for q in stems})


def _file(stem: str, quantile: str) -> str:
    return f"{stem}.{quantile}.txt" if quantile else f"{stem}.txt"


def _text(booster: lgb.Booster) -> str:
    text: str = booster.model_to_string(num_iteration=-1)
    return text


def _booster(text: str, features: tuple[str, ...]) -> lgb.Booster:
    import lightgbm as lgb  # half a second, which a replay without a model need not wait for

    try:
        booster = lgb.Booster(model_str=text)
    except lgb.basic.LightGBMError as error:
        raise ArtifactError(
            f"the model text cannot be read ({error}); expected LightGBM's format. Ship it again"
        ) from error
    require_inputs(booster, features)
    return booster


def require_inputs(booster: lgb.Booster, features: tuple[str, ...]) -> None:
    """Refuse trees grown on other inputs, or on the same in another order: LightGBM goes by position and says nothing.

    Trees of an older leaf refit have LightGBM's own names, which tell no more than how many inputs there are.

    Raises:
        ArtifactError: they differ.
    """
    for place, (theirs, ours) in enumerate(zip_longest(booster.feature_name(), features)):
        if theirs != ours and (ours is None or theirs != f"Column_{place}"):
            raise ArtifactError(
                f"the trees were grown on {theirs!r} as input {place}; expected {ours!r}. Train the model again"
            )
