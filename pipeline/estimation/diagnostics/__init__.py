"""Diagnostics: whether a one-step number can be read, why not, and what it rests on."""

from __future__ import annotations

from lodestar.pipeline.estimation.diagnostics.diagnose import Diagnostics, diagnose
from lodestar.pipeline.estimation.diagnostics.verdict import Verdict

__all__ = ["Diagnostics", "Verdict", "diagnose"]
