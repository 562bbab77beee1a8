"""Tails of a policy's cost on logged states: quantiles, the mean beyond them, and the share within a limit."""

from __future__ import annotations

from lodestar.pipeline.estimation.tails.measures import TailEstimate, tail_measures

__all__ = ["TailEstimate", "tail_measures"]
