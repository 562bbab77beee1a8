"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The first example compiles, and machines are shared: time is measured by the benchmarks.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def traces_folder() -> Path:
    named = os.environ.get("LODESTAR_TRACES")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "traces"


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of real logs; the test is skipped where it is absent."""
    folder = traces_folder()
    if not folder.is_dir():
        pytest.skip(f"no real logs at {folder}; point LODESTAR_TRACES at them")
    return folder
