"""Artifacts to serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import make_artifact


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of a made-up law; no test changes it."""
    directory = tmp_path_factory.mktemp("artifacts") / "first"
    make_artifact(directory)
    return directory


@pytest.fixture(scope="session")
def other_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the same law, twice as slow."""
    directory = tmp_path_factory.mktemp("artifacts") / "second"
    make_artifact(directory, seed=1, slower=2.0)
    return directory
