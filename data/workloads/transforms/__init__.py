"""Workloads into workloads: pure functions that keep which requests share which prefix blocks.

Of every request that is kept, the prompt, the output and its blocks stay as they were; two kept blocks have the same id
after as before if and only if they had. Ids are numbered anew from 0, and arrivals count from the first request kept.
"""

from __future__ import annotations

from lodestar.data.workloads.transforms.clock import scale_rate, shift_rate, warp
from lodestar.data.workloads.transforms.extend import extend
from lodestar.data.workloads.transforms.lengths import cut_prompts, rescale_blocks, scale_outputs
from lodestar.data.workloads.transforms.merge import join, merge, switch
from lodestar.data.workloads.transforms.rows import dense, pick
from lodestar.data.workloads.transforms.slice import slice_rows, slice_time
from lodestar.data.workloads.transforms.thin import prefix_groups, thin

__all__ = [
    "cut_prompts", "dense", "extend", "join", "merge", "pick", "prefix_groups", "rescale_blocks", "scale_outputs",
    "scale_rate", "shift_rate", "slice_rows", "slice_time", "switch", "thin", "warp",
]  # fmt: skip
