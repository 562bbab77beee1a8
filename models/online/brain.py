"""What an online router decides by: the latency models of each kind of instance, and the range they were trained in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.data.schema import PREFILL_TOKENS, PROMPT_TOKENS, TPOT_MS, TTFT_MS
from lodestar.features.definitions import FEATURE_NAMES, FEATURES, candidate_features
from lodestar.models.online.finished import Finished
from lodestar.models.serving import Decider, TargetScorer
from lodestar.models.shipping.names import model_key, target_of

if TYPE_CHECKING:
    from lodestar.models.latency import LatencyModel

__all__ = ["Brain", "Predicted"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_PROMPT: Final = FEATURE_NAMES.index(PROMPT_TOKENS)
_UNCACHED: Final = FEATURE_NAMES.index("uncached_prompt_tokens")
_AHEAD: Final = FEATURE_NAMES.index(PREFILL_TOKENS)
_P90_DEVIATIONS: Final = 1.2815515655446004  # of a normal law, up to its P90


class Predicted(NamedTuple):
    """One request on every candidate, shape (m,) each unless said otherwise.

    Attributes:
        features: shape (m, len(FEATURES)).
        ttft_ms: expected; NaN where no model knows.
        tpot_ms: the same.
        own_ms: what the prefill of this request itself takes there.
        ahead_ms: what the prompts before it there take, at the same speed.
        uncached_tokens: of its prompt there.
        outside: whether a feature lies beyond what the models were trained on.
    """

    features: Floats
    ttft_ms: Floats
    tpot_ms: Floats
    own_ms: Floats
    ahead_ms: Floats
    uncached_tokens: Floats
    outside: Bools


@dataclass(frozen=True)
class Brain:
    """Models that decide, never changed: a router takes another one in its place.

    Attributes:
        decider: scorers by target, and by ``target@kind`` for the instances of one kind.
        low: least value of each feature in training, NaN where it had none, shape (len(FEATURES),).
        high: greatest.
        rows: that it was trained on.
        trained_at_s: time of the newest row, on the router's clock.
        version: what an artifact calls it.
        log_sigma: standard deviation of log(TTFT / prediction): on the training rows, or of an artifact by how far its
            calibrated P90 lies above its P50.
    """

    decider: Decider
    low: Floats
    high: Floats
    rows: int = 0
    trained_at_s: float = float("nan")
    version: str = ""
    log_sigma: float = 0.0

    @classmethod
    def of(cls, decider: Decider, manifest: Mapping[str, Any]) -> Brain:
        """Return the brain of an artifact.

        Args:
            decider: as `Decider.load` read it.
            manifest: of the same artifact.

        Raises:
            ArtifactError: it has no TTFT model.
        """
        targets = manifest["targets"]
        if not any(target_of(key) == TTFT_MS for key in targets):
            raise ArtifactError(
                f"the artifact has models of {', '.join(targets)}; expected {TTFT_MS}. Ship one with it"
            )
        ranges = [entry["feature_ranges"] for key, entry in targets.items() if target_of(key) == TTFT_MS]
        low, high = (_ends(ranges, end) for end in (0, 1))
        rows = max(int(entry["rows"]) for entry in targets.values())
        trained_at_s = manifest.get("trained_at_s")
        version = str(manifest.get("manifest_sha256", ""))[:12]
        at_s = np.nan if trained_at_s is None else float(trained_at_s)
        return cls(decider, low, high, rows, at_s, version, _log_sigma(decider, low, high))

    @classmethod
    def of_models(cls, models: Mapping[str, LatencyModel], rows: Finished, trained_at_s: float, version: str) -> Brain:
        """Return the brain of models that this process has just trained on these rows."""
        brain = cls(Decider.of(dict(models)), *rows.ranges(), len(rows), trained_at_s, version)
        predicted_ms = brain.predict_features(rows.features, rows.kind.tolist()).ttft_ms
        with np.errstate(invalid="ignore"):
            error = np.log(rows.ttft_ms / predicted_ms)[~rows.censored & (rows.ttft_ms > 0)]
        return replace(brain, log_sigma=float(np.nanstd(error)))

    @cached_property
    def _token_ms(self) -> dict[str, float]:
        return {key: _token_ms(scorer) for key, scorer in self.decider.targets.items() if target_of(key) == TTFT_MS}

    def predict(self, prompt_tokens: float, snapshot: Floats, kinds: Sequence[str]) -> Predicted:
        """Predict one request on every candidate.

        Args:
            prompt_tokens: of the request.
            snapshot: one row a candidate, shape (m, len(SNAPSHOT_FIELDS)); NaN where a field is not known.
            kinds: hardware of each, '' where it is not known.
        """
        features = np.empty((len(snapshot), len(FEATURES)))
        snapshot = np.ascontiguousarray(snapshot, dtype=np.float64)
        candidate_features(float(prompt_tokens) if prompt_tokens > 0 else np.nan, snapshot, features)
        return self.predict_features(features, kinds)

    def predict_features(self, features: Floats, kinds: Sequence[str]) -> Predicted:
        """Predict as `predict` does, from features (m, len(FEATURES))."""
        ttft_ms, tpot_ms = (self._scored(target, features, kinds) for target in (TTFT_MS, TPOT_MS))
        with np.errstate(invalid="ignore"):
            outside = np.asarray(((features < self.low) | (features > self.high)).any(axis=1))
        tokens = np.where(np.isnan(features[:, _UNCACHED]), features[:, _PROMPT], features[:, _UNCACHED])
        token_ms = np.array(self.token_ms(kinds))
        ahead_ms = token_ms * np.nan_to_num(features[:, _AHEAD])
        return Predicted(features, ttft_ms, tpot_ms, token_ms * tokens, ahead_ms, tokens, outside)

    def _scored(self, target: str, features: Floats, kinds: Sequence[str]) -> Floats:
        out_ms = np.full(len(features), np.nan)
        for scorer, rows in self._groups(target, kinds):
            out_ms[rows] = scorer.mean_ms(np.ascontiguousarray(features[rows]))
        return out_ms

    def token_ms(self, kinds: Sequence[str]) -> list[float]:
        """Return what an uncached prompt token takes on an instance of each kind; NaN where no model knows."""
        known = self._token_ms
        return [known.get(model_key(TTFT_MS, kind), known.get(TTFT_MS, float("nan"))) for kind in kinds]

    def _groups(self, target: str, kinds: Sequence[str]) -> list[tuple[TargetScorer, Any]]:
        """Return each model and the rows that it scores: its kind's, and those of no other for the model of all."""
        targets, groups = self.decider.targets, []
        names = list(dict.fromkeys(kinds))
        if len(names) == 1:
            scorer = targets.get(model_key(target, names[0]), targets.get(target))
            return [] if scorer is None else [(scorer, slice(None))]
        of = np.array(kinds)
        for kind in names:
            scorer = targets.get(model_key(target, kind), targets.get(target))
            if scorer is not None:
                groups.append((scorer, np.flatnonzero(of == kind)))
        return groups


def _token_ms(scorer: TargetScorer) -> float:
    """Return what an uncached prompt token of the request itself takes by the baseline.

    Of a prompt without a hit, that is: tokens that are cached cost next to nothing, and where every prompt is uncached
    both works are one. The tokens before the request say it too, but those of a prompt that is half done count whole.
    """
    mean = scorer.mean
    alone = mean.second < 0
    return sum(
        float(mean.mean_ratio * mean.coefficient_ms[alone & (mean.first == column)].sum())
        for column in (_PROMPT, _UNCACHED)
    )


def _log_sigma(decider: Decider, low: Floats, high: Floats) -> float:
    """Return the spread that the stated quantiles have over the training range, as of a log-normal law."""
    rows = low + np.array([[0.1], [0.25], [0.5]]) * (high - low)
    said = [scorer.everything_ms(rows) for key, scorer in decider.targets.items() if target_of(key) == TTFT_MS]
    spreads = np.concatenate([np.log(each["p90"] / each["p50"]) for each in said])
    return float(np.median(spreads)) / _P90_DEVIATIONS


def _ends(ranges: Sequence[Mapping[str, Any]], end: int) -> Floats:
    """Return the least (0) or greatest (1) value of each feature over several models' ranges."""
    reduce = (np.fmin, np.fmax)[end]
    each = [[np.nan if of.get(name) is None else of[name][end] for name in FEATURE_NAMES] for of in ranges]
    return np.asarray(reduce.reduce(np.array(each, dtype=np.float64), axis=0))
