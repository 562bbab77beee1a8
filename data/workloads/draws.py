"""What a prefix structure draws from: arrivals, and lengths by the recipe's distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lodestar.data.log import Floats, Ints
from lodestar.data.workloads.arrivals import Limit, Starts
from lodestar.data.workloads.lengths import LARGEST, Lengths, Load
from lodestar.data.workloads.tables import require

__all__ = ["Draws"]


@dataclass(frozen=True, slots=True)
class Draws:
    """Everything random of one part of a recipe.

    Attributes:
        rng: the source of chance for all but the arrivals, which have their own.
        starts: the arrivals.
        limit: how much is wanted.
        prompt: distribution of prompt tokens, or of a turn's new tokens.
        output: distribution of output tokens.
        block_tokens: prompt tokens in one block.
        load: gives the workload that a source names.
    """

    rng: np.random.Generator
    starts: Starts
    limit: Limit
    prompt: Lengths
    output: Lengths
    block_tokens: int
    load: Load

    def values(self, lengths: Lengths, count: int) -> Floats:
        """Draw from a distribution."""
        return lengths.draw(self.rng, count, self.load)

    def whole(self, lengths: Lengths, count: int) -> Ints:
        """Draw whole numbers, at least 1."""
        values = self.values(lengths, count)
        largest = float(values.max(initial=0))
        require("a length of", largest, largest <= LARGEST, f"at most {LARGEST:.0e}; give the distribution an at_most")
        return np.maximum(np.rint(values), 1).astype(np.int64)

    def prompt_tokens(self, count: int) -> Ints:
        """Draw prompts."""
        return self.whole(self.prompt, count)

    def output_tokens(self, count: int) -> Ints:
        """Draw outputs."""
        return self.whole(self.output, count)
