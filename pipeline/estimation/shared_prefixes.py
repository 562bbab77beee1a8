"""Requests that share a prefix: what groups of them that span a whole log add to the error of its values.

Blocks of time cannot see such groups: each meets all of them. Where the requests of a group have one prompt length, the
mean prompt length of the log is that of its groups, of which there are few; and with it move the costs of all requests,
also of those that only queue behind. The log itself tells by how much, as prompt lengths differ from block to block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import block_sums

__all__ = ["SharedPrefixes", "Spanning"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Of the requests. What more of them begin with, such as the system prompt of one of few applications, belongs to the
#: traffic and makes no group: so few cannot tell how others would differ, and would drown the many groups within them.
_COMMON: Final = 0.1
#: Variance of block sums of prompt lengths, over that of lengths in random order. Luck does not make it so low. Where
#: groups come in turn, as in benchmarks, lengths hardly differ from block to block, and these tell no slope.
_LEAST_SPREAD: Final = 0.1


class Spanning(NamedTuple):
    """What groups that span blocks add to the variance of a mean, in its unit squared, and the variance of that."""

    added: float
    noise: float


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """Which of the requests, in order of arrival, share a prefix, and how long their prompts are.

    Attributes:
        group: number of each request's group, from 0, shape (n,); -1: it shares with nobody.
        prompt_tokens: shape (n,).
    """

    group: Ints
    prompt_tokens: Ints
    # The same for every estimator, and the slowest part: block → what groups add to the mean prompt length.
    _known: dict[int, Spanning] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what is not one number a request."""
        if self.group.shape != self.prompt_tokens.shape or self.group.ndim != 1:
            raise DataError(
                f"group has shape {self.group.shape} and prompt_tokens {self.prompt_tokens.shape}; expected one of "
                "each for every request"
            )

    @classmethod
    def of_blocks(cls, block_ids: Ints, block_offsets: Ints, prompt_tokens: Ints) -> SharedPrefixes:
        """Group requests by the first of their prefix blocks that at most a tenth of the requests have.

        Args:
            block_ids: dense, as in `Workload`.
            block_offsets: as in `Workload`, shape (n + 1,).
            prompt_tokens: shape (n,).

        >>> ids = np.array([0, 1] * 2 + [0, 2] * 2 + [0] * 16)
        >>> offsets = np.concatenate([[0, 2, 4, 6, 8], np.arange(9, 25)])
        >>> SharedPrefixes.of_blocks(ids, offsets, np.full(20, 64)).group[:6].tolist()
        [0, 0, 1, 1, -1, -1]
        """
        n = len(prompt_tokens)
        having = np.bincount(block_ids)
        places = np.flatnonzero(((having > 1) & (having <= _COMMON * n))[block_ids])
        first = np.append(places, len(block_ids))[np.searchsorted(places, block_offsets[:-1])]
        group = np.full(n, -1, dtype=np.int64)
        shares = first < block_offsets[1:]
        group[shares] = np.unique(block_ids[first[shares]], return_inverse=True)[1]
        return cls(group, prompt_tokens)

    def only(self, kept: Bools) -> SharedPrefixes:
        """Return the requests for which `kept`, shape (n,), is true."""
        return SharedPrefixes(self.group[kept], self.prompt_tokens[kept])

    def spanning(self, influence: Floats, block: int) -> Spanning:
        """Return what groups that go on beyond a block add to the variance of the mean of influence values.

        It is slope² times what they add to that of the mean prompt length, `between`. The slope says how the value
        moves with a token: least squares of block sums of the influence on those of the tokens, each less their mean,
        over blocks half as long, so that what a long prompt does to the queue behind it counts; over shorter ones where
        prompt lengths come in turn and hardly differ between these. Noise: that of the slope by the residuals, and that
        of `between`.

        Args:
            influence: of every decision, shape (n,).
            block: consecutive decisions that count as one, at least two.

        >>> random = np.random.default_rng(0)
        >>> group = random.permutation(np.arange(1200) // 12)
        >>> shared = SharedPrefixes(group, random.integers(100, 900, 100)[group])
        >>> found = shared.spanning(shared.prompt_tokens * 1.0, 100)
        >>> np.allclose(found, shared.between(100))
        True
        """
        between, unsure = self.between(block)
        if between == 0:
            return Spanning(0.0, 0.0)
        slope, variance = self._slope(influence, block)
        noise = (4 * slope**2 * variance + 2 * variance**2) * between**2 + slope**4 * unsure
        return Spanning(slope**2 * between, noise)

    def without_lengths(self, influence: Floats, block: int) -> Floats:
        """Return influence values less what prompt lengths make of them: slope · (tokens − their mean), shape (n,).

        What is left is the error about the value of these very requests: in whatever order they come again, their mean
        prompt length is the same, and so is what it makes of their mean cost. The slope is that of `spanning`.

        Args:
            influence: of every decision, shape (n,).
            block: consecutive decisions that count as one, at least two.

        >>> tokens = np.random.default_rng(0).integers(100, 900, 1200)
        >>> shared = SharedPrefixes(np.full(1200, -1), tokens)
        >>> np.allclose(shared.without_lengths(0.1 * tokens + 5.0, 100), 0.1 * tokens.mean() + 5.0)
        True
        """
        slope, _ = self._slope(influence, block)
        return np.asarray(influence - slope * (self.prompt_tokens - self.prompt_tokens.mean()))

    def _slope(self, influence: Floats, block: int) -> tuple[float, float]:
        """Return how the value moves with a token, and the variance of that by the residuals; 0 of equal lengths."""
        tokens, length = self.prompt_tokens - self.prompt_tokens.mean(), -(-block // 2)
        while length > 1 and np.sum(block_sums(tokens, length) ** 2) < _LEAST_SPREAD * np.sum(tokens**2):
            length //= 2
        x, y = block_sums(tokens, length), block_sums(influence - influence.mean(), length)
        if not x.any():
            return 0.0, 0.0
        slope = float(x @ y / (x @ x))
        return slope, float(np.sum((y - slope * x) ** 2) / max(len(x) - 2, 1) / (x @ x))

    def between(self, block: int) -> Spanning:
        """Return what groups that go on beyond a block add to the variance of the mean prompt length.

        It is the sum of x̃ᵢ x̃ⱼ / n² over pairs of requests of one group in different blocks, x̃ being tokens less their
        mean; 0 where that is negative. Noise: 2/3 Σ T⁴ / n⁴, T being the sum of x̃ over a group, which is
        2 Σ (variance of T)² where T is normal: much where few groups make it.

        Args:
            block: consecutive requests that count as one.

        >>> SharedPrefixes(np.array([0, 0, 1, 1, 0, 0]), np.array([4, 4, 1, 1, 4, 4])).between(2)
        Spanning(added=0.222..., noise=0.263...)
        """
        if block not in self._known:
            self._known[block] = self._between(block)
        return self._known[block]

    def _between(self, block: int) -> Spanning:
        tokens = self.prompt_tokens - self.prompt_tokens.mean()
        at = np.flatnonzero(self.group >= 0)
        if not len(at):
            return Spanning(0.0, 0.0)
        blocks = -(-len(tokens) // block)
        cells, cell = np.unique(self.group[at] * blocks + at // block, return_inverse=True)
        in_cells = np.bincount(cell, tokens[at])
        in_groups = np.bincount(cells // blocks, in_cells)
        added = max(0.0, float(in_groups @ in_groups - in_cells @ in_cells))
        return Spanning(added / len(tokens) ** 2, 2 / 3 * float(np.sum(in_groups**4)) / len(tokens) ** 4)
