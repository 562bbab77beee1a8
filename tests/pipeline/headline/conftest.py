"""A study small enough for tests."""

from __future__ import annotations

import pytest

from lodestar.pipeline.headline.cell import CellResult
from lodestar.pipeline.headline.plan import Effort, Spec
from lodestar.pipeline.headline.study import study

EFFORT = Effort(requests=400, seeds=2, trials=2, search_seeds=1, draws=50, published_seeds=1, readme_seeds=0)
SPECS = (Spec("failure", "homogeneous", 0.75), Spec("sharing71", "heterogeneous", 0.75))


@pytest.fixture(scope="session")
def results() -> list[CellResult]:
    """Two cells, one of them with a failure in the middle, in this process."""
    return study(SPECS, EFFORT, workers=1)
