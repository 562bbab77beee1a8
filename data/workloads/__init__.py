"""Workloads made to order from recipes, and changed by transforms."""

from __future__ import annotations
