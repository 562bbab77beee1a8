"""What the server tells Prometheus."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_REFIT_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Every metric of one server, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing reads
        self.registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"lodestar_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"lodestar_{name}", what, labels, registry=registry)

        self.decisions = counter("decisions", "Decisions by route and by what made them.", "route", "source")
        self._trained_at_s = 0.0
        self._decided: dict[tuple[str, str], Counter] = {}
        self.request_seconds = Histogram(
            "lodestar_request_seconds", "From the head of a request to its answer.", ("route",), buckets=_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.refused = counter("refused", "Requests answered with a 4xx.", "route", "status")
        self.failures = counter("failures", "Requests answered with a 500: a bug each.", "route")
        self.outside = counter("candidates_outside", "Candidates outside the range of the training rows.")
        self.explored = counter("explored", "Decisions for another candidate than the cheapest.")
        self.untold = counter("inflight_untold", "Lines that left out the requests in flight.")
        self.outcomes = counter("outcomes", "Finished requests by what became of them.", "result")
        self.pending = gauge("pending_decisions", "Decisions whose outcome is not known.")
        self.reserved = gauge("reserved_requests", "Decisions held until the gateway counts them.")
        self.instances = gauge("instances", "Instances that were ever a candidate.")
        self.queue = gauge("queue_length", "Decisions that wait for their turn.")
        self.model_info = gauge("model_info", "1 for the model that serves.", "version")
        self.trained_at = gauge("model_trained_timestamp_seconds", "When the model was trained, in Unix time.")
        self.age = gauge("model_age_seconds", "Since the model was trained.")
        self.reloads = counter("reloads", "Models put in place, after their golden rows were checked.", "by")
        self.reload_failures = counter("reload_failures", "Artifacts that were refused; the old one served on.", "by")
        self.refits = counter("refits", "Refits begun.")
        self.kept = counter("refits_not_better", "Refits whose model predicts no better than the one that serves.")
        self.refit_failures = counter("refit_failures", "Refits that gave no model.")
        self.refit_seconds = Histogram(
            "lodestar_refit_seconds", "From the start of a refit to its end.", buckets=_REFIT_BUCKETS, registry=registry
        )
        self.rows = gauge("rows_buffered", "Finished requests kept for training.")
        self.residual = gauge("drift_log_residual", "Mean log(measured / predicted TTFT) of the newest outcomes.")
        self.alarms = counter("drift_alarms", "Times that ADWIN found the mean error changed.")
        self.below_p90 = gauge("below_p90_ratio", "Share of the newest TTFTs below their stated P90; calibrated: 0.9.")
        self.judged = gauge("outcomes_judged", "Newest outcomes that drift and calibration are taken over.")
        self.logged = counter("decision_log_records", "Records written to the decision log.")
        self.log_drops = counter("decision_log_dropped", "Records that were not written, by why.", "why")

    def decided(self, route: str, source: str) -> None:
        """Count a decision."""
        found = self._decided.get((route, source))
        if found is None:  # `labels` takes longer than all the rest
            found = self._decided[route, source] = self.decisions.labels(route, source)
        found.inc()

    def model(self, version: str, trained_at_s: float) -> None:
        """Note which model serves from now on."""
        self._trained_at_s = trained_at_s
        self.model_info.clear()
        self.model_info.labels(version).set(1)
        self.trained_at.set(trained_at_s)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        self.age.set(time.time() - self._trained_at_s if self._trained_at_s else 0.0)
        return generate_latest(self.registry)
