"""Products that stay on one thread are the products."""

from __future__ import annotations

import numpy as np
import pytest

from lodestar.models.network.products import product


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 128, 128), (256, 10, 128), (257, 128, 128), (500, 128, 1)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_product_in_pieces_is_the_product(shape: tuple[int, int, int], kind: type) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=shape[:2]).astype(kind), rng.normal(size=shape[1:]).astype(kind)
    for left, right in ((a, b), (a.T.copy().T, b), (a, b.T.copy().T), (b.T, a.T)):
        found = product(left, right)
        assert found.dtype == kind
        np.testing.assert_allclose(found, np.einsum("ij,jk->ik", left, right), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("rows", [1, 71, 72, 73, 1000])
def test_so_is_one_with_a_vector(rows: int) -> None:
    a, vector = np.random.default_rng(0).normal(size=(rows, 128)), np.random.default_rng(1).normal(size=128)
    np.testing.assert_allclose(product(a, vector), (a * vector).sum(axis=1), rtol=1e-9, atol=1e-9)
