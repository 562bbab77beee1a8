"""One decision in the process that routes: the models of an artifact as compiled code, without LightGBM.

::

    decider = Decider.load(Path("artifact"))  # every byte is verified, the compiled code is ready
    ttft = decider.predict(prompt_tokens, snapshot, quantiles=True)["ttft_ms"]
    ttft.mean_ms, ttft.quantiles_ms  # one number a candidate; one row a candidate: P50, P90, P99

Features, trees and baseline go through the functions that training, replay and the golden rows use. A `Decider` never
changes, and its compiled code lets other threads run: one serves them all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError, unknown
from lodestar.data.jit import jit
from lodestar.data.schema import SNAPSHOT_FIELDS
from lodestar.features.definitions import FEATURES, candidate_features
from lodestar.models.baseline import Baseline
from lodestar.models.scorer import Scorer, flatten, score, scorer_of
from lodestar.models.seal import read_sealed, verify_files
from lodestar.models.shipping.names import file_stem
from lodestar.models.shipping.opened import open_artifact
from lodestar.models.slices import EDGES, QUEUES
from lodestar.models.textmodel import trees_of
from lodestar.models.uncertainty.conformal import Conformal

if TYPE_CHECKING:
    from lodestar.models.latency import LatencyModel

__all__ = ["Decider", "Prediction", "TargetScorer", "all_paths", "quantiles_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MEAN: Final = "mean"
# As arguments, not as constants: the cache of compiled code would not see them change.
_COLUMNS: Final = np.array(QUEUES, dtype=np.int64)
_EDGES: Final = np.array(EDGES)


class Prediction(NamedTuple):
    """What one target will be on every candidate.

    Attributes:
        mean_ms: expected latency, shape (m,).
        quantiles_ms: P50, P90 and P99, shape (m, 3); None if not asked for.
    """

    mean_ms: Floats
    quantiles_ms: Floats | None


@dataclass(frozen=True, slots=True)
class TargetScorer:
    """A `LatencyModel` that is ready to score.

    Attributes:
        mean: trees of the mean.
        heads: quantiles that have trees of their own → these trees.
        shapes: quantile, from the lowest on → whose trees it takes, 'mean' or a head.
        offsets: conformal correction of the log of each quantile, shape (slices, quantiles).
    """

    mean: Scorer
    heads: dict[str, Scorer]
    shapes: dict[str, str]
    offsets: Floats

    @classmethod
    def of(cls, values: dict[str, Any], texts: dict[str, str]) -> TargetScorer:
        """Put together what `LatencyModel.to_dict` and `LatencyModel.texts` returned, or what an artifact holds."""
        baseline = Baseline.from_dict(values["baseline"])
        flat = {name: flatten(trees_of(text), values["features"], baseline) for name, text in texts.items()}
        mean = flat.pop("")
        shapes = {name: shape if shape in flat else _MEAN for name, shape in values["quantile_shapes"].items()}
        table = Conformal.from_dict(values["conformal"]).table()
        heads = {name: flat[name] for name in flat if name in shapes.values()}
        return cls(mean._replace(mean_ratio=values["mean_ratio"]), heads, shapes, table)

    def mean_ms(self, features: Floats) -> Floats:
        """Return the expected latency of every row of `features` (m, len(FEATURES)), C-contiguous; shape (m,)."""
        out_ms = np.empty(len(features))
        score(features, self.mean, out_ms)
        return out_ms

    def quantiles_ms(self, features: Floats, mean_ms: Floats) -> Floats:
        """Return the latency at each quantile, shape (m, quantiles); they never cross.

        `mean_ms` is what `mean_ms` returned for the same rows: the P50 has its shape.
        """
        shape_ms = {_MEAN: mean_ms / self.mean.mean_ratio}
        for name, head in self.heads.items():
            score(features, head, shape_ms.setdefault(name, np.empty(len(features))))
        return _quantiles_ms(features, shape_ms, self.shapes, self.offsets)

    def everything_ms(self, features: Floats) -> dict[str, Floats]:
        """Return 'mean' and the name of each quantile → ms, shape (m,)."""
        mean_ms = self.mean_ms(features)
        return {_MEAN: mean_ms} | dict(zip(self.shapes, self.quantiles_ms(features, mean_ms).T, strict=True))


@dataclass(frozen=True, slots=True)
class Decider:
    """The models of an artifact, ready for one decision after another.

    Attributes:
        targets: 'ttft_ms', 'tpot_ms' and 'e2e_ms', as far as there are models; 'ttft_ms@V100' is one for instances of
            that kind alone.
    """

    targets: dict[str, TargetScorer]

    @classmethod
    def load(cls, place: str | Path) -> Decider:
        """Read an artifact after verifying every byte, and score once so that the first request does not wait.

        Args:
            place: a directory, a ``.tar``, or the URL of either.

        Raises:
            ArtifactError: it is damaged, or of another version.
        """
        with open_artifact(place) as directory:
            manifest = read_sealed(directory)
            verify_files(directory, manifest["sha256"])
            models = {target: entry["model"] for target, entry in manifest["targets"].items()}
            decider = cls({target: TargetScorer.of(m, _texts(directory, target, m)) for target, m in models.items()})
        return decider.warmed()

    @classmethod
    def of(cls, models: dict[str, LatencyModel]) -> Decider:
        """Make one of models that this process holds already."""
        return cls({target: TargetScorer.of(model.to_dict(), model.texts()) for target, model in models.items()})

    def warmed(self) -> Decider:
        """Compile, or read compiled code from disk, by scoring one candidate."""
        features = np.zeros((1, len(FEATURES)))
        candidate_features(1.0, np.zeros((1, len(SNAPSHOT_FIELDS))), features)
        for scorer in self.targets.values():
            scorer.everything_ms(features)
        return self

    def predict(
        self,
        prompt_tokens: float,
        snapshot: Floats,
        targets: Sequence[str] | None = None,
        *,
        quantiles: bool = False,
    ) -> dict[str, Prediction]:
        """Predict one request on every candidate.

        Args:
            prompt_tokens: of the request; 0 counts as unknown, as in training.
            snapshot: shape (m, len(SNAPSHOT_FIELDS)), one row a candidate; NaN where a field is not known.
            targets: which latencies; all that there are models for if left out.
            quantiles: whether to predict P50, P90 and P99 as well.

        Raises:
            DataError: the snapshot has another shape.
            ConfigError: there is no model for a target.
        """
        features = _features_of(prompt_tokens, snapshot)
        out = {}
        for target in self.targets if targets is None else targets:
            if target not in self.targets:
                raise unknown("target", target, self.targets)
            scorer = self.targets[target]
            mean_ms = scorer.mean_ms(features)
            out[target] = Prediction(mean_ms, scorer.quantiles_ms(features, mean_ms) if quantiles else None)
        return out


def all_paths(model: LatencyModel, features: Floats) -> dict[str, dict[str, Floats]]:
    """Return what every way of scoring makes of the rows (n, len(FEATURES)): path → 'mean' or a quantile → ms (n,).

    'LightGBM' is `Booster.predict`, 'the replay' what the compiled kernel calls, which has no quantiles, and 'serving'
    what a `Decider` makes of the text and the manifest. All must agree to 1e-9.
    """
    columns = model.predict_quantiles(features).T
    trained = {_MEAN: model.predict(features)} | dict(zip(model.conformal.quantiles, columns, strict=True))
    replayed_ms = np.empty(len(features))
    score(features, scorer_of(model), replayed_ms)
    served = TargetScorer.of(json.loads(json.dumps(model.to_dict())), model.texts())
    return {"LightGBM": trained, "the replay": {_MEAN: replayed_ms}, "serving": served.everything_ms(features)}


def quantiles_of(
    features: Floats, shape_ms: dict[str, Floats], shapes: dict[str, str], conformal: dict[str, Any]
) -> dict[str, Floats]:
    """Return quantile → ms, shape (m,), of trees that were scored elsewhere.

    Args:
        features: shape (m, len(FEATURES)).
        shape_ms: 'mean' and the name of each head → ``baseline_ms * exp(trees)``, shape (m,).
        shapes: 'quantile_shapes' of `LatencyModel.to_dict`.
        conformal: 'conformal' of it.
    """
    known = {name: shape if shape in shape_ms else _MEAN for name, shape in shapes.items()}
    corrected_ms = _quantiles_ms(features, shape_ms, known, Conformal.from_dict(conformal).table())
    return dict(zip(known, corrected_ms.T, strict=True))


def _quantiles_ms(features: Floats, shape_ms: dict[str, Floats], shapes: dict[str, str], offsets: Floats) -> Floats:
    stacked_ms = np.stack([shape_ms[name] for name in shapes.values()])
    _correct(features, _COLUMNS, _EDGES, offsets, stacked_ms)
    return stacked_ms.T


def _texts(directory: Path, target: str, values: dict[str, Any]) -> dict[str, str]:
    stem = file_stem(target)
    names = {"": f"{stem}.txt"} | {head: f"{stem}.{head}.txt" for head in values["heads"]}
    return {head: (directory / name).read_text(encoding="utf-8") for head, name in names.items()}


def _features_of(prompt_tokens: float, snapshot: Floats) -> Floats:
    snapshot = np.ascontiguousarray(snapshot, dtype=np.float64)
    if snapshot.ndim != 2 or snapshot.shape[1] != len(SNAPSHOT_FIELDS):
        raise DataError(
            f"the snapshot has shape {snapshot.shape}; expected (candidates, {len(SNAPSHOT_FIELDS)}), the fields "
            f"{', '.join(SNAPSHOT_FIELDS)}. Give one row a candidate, NaN where a field is not known"
        )
    features = np.empty((len(snapshot), len(FEATURES)))
    candidate_features(float(prompt_tokens) if prompt_tokens > 0 else np.nan, snapshot, features)
    return features


@jit
def _correct(features: Floats, columns: Ints, edges: Floats, offsets: Floats, out_ms: Floats) -> None:
    """Move raw quantiles (quantiles, m) by the offset of each row's load slice; none is below the one before.

    Neither the raw ones nor the corrected ones cross: that is one running maximum before and one after.
    """
    for j in range(features.shape[0]):
        of = _slice_of(features[j], columns, edges)
        raw = corrected = 0.0
        for q in range(out_ms.shape[0]):
            raw = np.maximum(raw, out_ms[q, j])  # NaN stays
            corrected = np.maximum(corrected, raw * np.exp(offsets[of, q]))
            out_ms[q, j] = corrected


@jit
def _slice_of(row: Floats, columns: Ints, edges: Floats) -> int:
    """Return what `load_slice` does, for one row: these columns tell of the queue, the best first."""
    for column in columns:
        if not np.isnan(row[column]):
            of = 0
            for edge in edges:
                of += row[column] >= edge
            return of
    return len(edges) + 1
