"""The plateau plot: one line a policy over horizons, a band of two standard errors, a ring where it was read."""

from __future__ import annotations

import numpy as np

from lodestar.pipeline.estimation.beyond.derivative import derivative
from lodestar.reports.colours import looks
from lodestar.reports.derivative_figure import derivative_figure


def test_line_band_and_ring_are_the_path() -> None:
    w = 2.0 * (np.random.default_rng(0).random(4000) < 0.5)
    path = derivative(w + np.append(0.0, w[:-1]), w)
    band, line, ring = derivative_figure({"a<b": path.to_dict()}, looks(["a<b"])).data
    np.testing.assert_allclose(line.y, path.values, rtol=1e-6)
    assert line.x.tolist() == path.horizons.tolist()
    assert line.name == "a&lt;b"
    np.testing.assert_allclose(band.y[: len(path.values)], path.values - 2 * path.ses)
    np.testing.assert_allclose(band.y[::-1][: len(path.values)], path.values + 2 * path.ses)
    assert (ring.x[0], ring.y[0]) == (path.horizon, path.value)
