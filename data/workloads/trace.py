"""A recipe's requests taken from a real trace, with the scaling that fits them to smaller engines."""

from __future__ import annotations

from dataclasses import dataclass

from lodestar.data.log import Workload
from lodestar.data.workloads.lengths import Load
from lodestar.data.workloads.tables import require
from lodestar.data.workloads.transforms.extend import extend
from lodestar.data.workloads.transforms.lengths import cut_prompts, rescale_blocks, scale_outputs
from lodestar.data.workloads.transforms.slice import slice_time

__all__ = ["Trace", "from_trace"]


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests of a log file or dataset, changed in the order of these fields.

    Attributes:
        source: file or dataset.
        from_s: where the window begins.
        window_s: how long it is; to the end where it is left out.
        tokens_per_block: what a block stands for from now on; prompts are scaled alike.
        prompt_at_most_tokens: longer prompts are cut.
        output_scale_ratio: outputs are multiplied by this.
        copies: how often the window is repeated.
        copies_share_prefixes: whether a copy asks what the first asked, or has prefixes of its own.
    """

    source: str
    from_s: float = 0.0
    window_s: float | None = None
    tokens_per_block: int | None = None
    prompt_at_most_tokens: int | None = None
    output_scale_ratio: float = 1.0
    copies: int = 1
    copies_share_prefixes: bool = False

    def __post_init__(self) -> None:
        require("from_s", self.from_s, 0 <= self.from_s < float("inf"), "0 or more")
        require("window_s", self.window_s, self.window_s is None or self.window_s > 0, "more than 0")
        for name in ("tokens_per_block", "prompt_at_most_tokens"):
            value = getattr(self, name)
            require(name, value, value is None or value >= 1, "1 or more")
        require("output_scale_ratio", self.output_scale_ratio, 0 < self.output_scale_ratio <= 1e6, "more than 0")
        require("copies", self.copies, self.copies >= 1, "1 or more")


def from_trace(trace: Trace, load: Load) -> Workload:
    """Load a trace's workload and change it as told."""
    end_s = float("inf") if trace.window_s is None else trace.from_s + trace.window_s
    workload = slice_time(load(trace.source), trace.from_s, end_s)
    if trace.tokens_per_block is not None:
        workload = rescale_blocks(workload, trace.tokens_per_block)
    if trace.prompt_at_most_tokens is not None:
        workload = cut_prompts(workload, trace.prompt_at_most_tokens)
    # The period of a copy is the window, so that its rate is the trace's.
    period_s = None if trace.window_s is None else max(trace.window_s, float(workload.arrived_at_s[-1]))
    scaled = scale_outputs(workload, trace.output_scale_ratio) if trace.output_scale_ratio != 1 else workload
    return extend(scaled, trace.copies, trace.copies_share_prefixes, period_s)
