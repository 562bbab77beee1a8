"""What `scoring_speed.py` says around its tables, and the format of an artifact for scorers in other languages."""

from __future__ import annotations

__all__ = ["CONCLUSION", "INTRODUCTION"]

INTRODUCTION = """# What one decision costs

Printed by `python tests/bench/scoring_speed.py [TRACES]`: µs for one decision over a number of candidates, on
decisions of {source}. Every way times {block} decisions in a row, {blocks} times in turn with the others: median, 5th
and 95th percentile. *Times faster* than `Booster.predict` on one thread is the median ratio of these blocks. *Cold*
is the median of {cold} decisions with {other} MiB of other memory written before each, as by a process that does more
than decide. *Difference* is the largest relative one to what LightGBM predicts, in ms. Decisions over 8 and 64
candidates are put together from the candidates of decisions that follow each other.

LightGBM's times are those of its trees alone; ours are those of the whole latency in ms: trees, physical baseline,
exponential. *With features* begins at the snapshot of the candidates, as a router does: `Decider.predict` is one call
from Python, *in the replay* the mean of many calls from compiled code, which is what a learned policy costs there.
*Walker* goes from node to node by branches, in compiled code.

Python {python}, LightGBM {lightgbm}, Numba {numba} and NumPy {numpy} on a shared machine of {cores} x86_64 cores.
"""

CONCLUSION = """
## Which one is used

The compiled scorer (`models/scorer.py`), by the replay (`score_in`) and in the process that routes
(`models/serving.py`): it adds the leaves in LightGBM's order, so its sums agree to the last bit, and takes the
exponential of the same number. LightGBM's own ways stay as the oracle of the golden rows: `ship` and `ship --check`
score them every way (`all_paths` in `models/serving.py`) and refuse differences above 1e-9.

## What a scorer in another language needs

All of it is in the artifact; hashes of all files are in `manifest.json` under `sha256`.

1. **Features.** `features` of the manifest lists name, unit, formula and snapshot fields of every column, in order. A
   field that is not known is NaN, and so is a prompt of 0 tokens; a feature is NaN where one of its fields is.
2. **Model of a target** (`targets.<target>.model`). `features` names the inputs of the trees: position i there is
   feature i of the text models. `<target>.txt` holds the trees of the mean, `<target>.<quantile>.txt` those of each
   of `heads`.
3. **Trees.** LightGBM's text format. Of every block `Tree=`: `split_feature`, `threshold`, `decision_type`,
   `left_child`, `right_child` (below 0: leaf `-1 - child`), `leaf_value`. First, a feature with |x| <= 1e-35 (the
   nearest 32-bit float) counts as 0. Bits 2 and 3 of `decision_type` say what is missing: 0 nothing (NaN counts as
   0), 1 zero and NaN, 2 NaN. A missing value goes left where bit 1 is set, else right; any other value goes left
   where it is at most `threshold`. There are no categorical splits (bit 0), no linear leaves, and at most 64 leaves.
   Add the leaves in the order of the trees, in 64-bit floats: their sum is `trees` of the mean, or `head` of a
   quantile.
4. **Baseline.** `baseline.terms`: the sum of `ms` times the product of the term's features (1 if it names none), in
   that order; a term of which a feature is NaN adds nothing. At least `baseline.floor_ms`, and at most
   `baseline.ceiling_ms` where there is one (of TPOT only).
5. **Mean**: `mean_ratio * baseline_ms * exp(trees)`.
6. **Quantiles**, from the lowest on: `quantile_shapes` names the trees that each takes, `mean` or a head; their sums
   never fall from one quantile to the next (a lower one is raised to the one before), and neither do the quantiles,
   `baseline_ms * exp(sum + offset)`. The offset is that of the row's load slice,
   `conformal.offsets[slice][quantile]`. The slice comes from `waiting_requests`, or where that is NaN
   `queued_requests`, or else `inflight_prefill_requests`: below 1, below 3, below 6, from 6 on, or unknown where all
   three are NaN (`conformal.slices` in this order).
7. **Check.** `golden.json` holds rows and what they must give; stay within 1e-9 of it, relatively.
"""
