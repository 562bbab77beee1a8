"""Lodestar turns the logs of an LLM-inference router into a better router, offline."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
