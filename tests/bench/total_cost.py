"""What to count beside a request's own TTFT: ``python tests/bench/total_cost.py > docs/total_cost.md``.

(a) Shapes of the imposed delay on predictions without error. (b) `lodestar-online` with and without each of its parts.
(c) Its objectives. (d) What counterfactual replays say of the delay. Shapes and weights were chosen on the first
group of workloads; the second was not looked at before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

import numpy as np
from cost_shapes import ARRIVALS, BACKLOG, COUNT, FIFTH, GREEDY, HALF, OWN, SHAPES, SHARED, CostShape
from numpy.typing import NDArray

from lodestar.pipeline.headline.plan import Effort, Spec
from lodestar.pipeline.headline.worlds import world
from lodestar.pipeline.online.imposed import HORIZON_S, imposed_delays, learned_weights
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.policy_names import find_policy, make_policy
from lodestar.pipeline.replay.routing.contract import Policy

Floats = NDArray[np.float64]
Row = tuple[str, dict[Spec, Floats]]

CHOSEN_ON: Final = ("sharing09", "sharing47", "sharing71", "sessions", "bursts")
HELD_OUT: Final = ("diurnal", "sharing00-50-shift", "rate-shift")
RULES: Final = ("lmetric", "least-uncached-tokens")
TRIED: Final = (
    (GREEDY, 0.0), (COUNT, 1.0), (COUNT, 2.0), (COUNT, 3.0), (OWN, 0.5), (SHARED, 1.0), (ARRIVALS, 0.5),
    (ARRIVALS, 1.0), (BACKLOG, 2.0), (BACKLOG, 5.0), (FIFTH, 2.0), (FIFTH, 5.0), (FIFTH, 8.0), (HALF, 2.0), (HALF, 5.0),
)  # fmt: skip
VARIANTS: Final = (
    "", "imposed=0,churn=0", "imposed=0", "imposed=2.5", "imposed=10", "own_share=0", "own_share=0.5", "churn=0",
    "churn=2", "progress=false", "count_uncached=false", "drift=false", "diverse_requests=0", "outside=model",
    "cold_start=aibrix-prefix-cache",
)  # fmt: skip
SLO_TTFT_MS: Final = 2000.0
OBJECTIVES: Final = {
    "TTFT": "",
    "E2E": "ttft_weight=0,e2e_weight=1",
    "TPOT": "ttft_weight=0,tpot_weight=1",
    "TTFT + E2E": "e2e_weight=1",
    f"TTFT ≤ {SLO_TTFT_MS:g} ms": f"ttft_weight=0.1,slo_ttft_ms={SLO_TTFT_MS:g},slo_weight=5000",
}

HEAD: Final = """# Total cost: what to count beside a request's own TTFT

Printed by `python tests/bench/total_cost.py`. {requests} requests a run, the fleets of
[headline.md](headline.md). Factors are over the better of `lmetric` and `least-uncached-tokens` in each cell: mean TTFT
and P99, geometric means, above 1 is faster. *Chosen on*: {chosen}. *Held out*: {held_out}.
"""


def specs(workloads: Sequence[str]) -> list[Spec]:
    """Return the cells."""
    places = (("heterogeneous", 0.75), ("heterogeneous", 0.9), ("homogeneous", 0.9))
    return [Spec(workload, fleet, load) for fleet, load in places for workload in workloads]


def marks(outcome: Outcome) -> Floats:
    """Return mean and P99 of the TTFT in ms, of the whole run but its first 5 %."""
    ttft_ms = outcome.ttft_ms[len(outcome.ttft_ms) // 20 :]
    return np.array([np.nanmean(ttft_ms), np.nanquantile(ttft_ms, 0.99)])


def factors(spec: Spec, requests: int) -> dict[str, Floats]:
    """Return of one cell how much faster each shape and variant is than the better rule."""
    cluster = world(spec, Effort(requests=requests), 0).cluster
    best = np.min([marks(cluster.replay(make_policy(rule))) for rule in RULES], axis=0)
    mean_tokens = float(np.mean(cluster.workload.prompt_tokens - cluster.replay(CostShape()).cached_tokens))
    found: dict[str, Floats] = {}
    for shape, weight in TRIED:
        found[f"{shape},{weight:g}"] = best / marks(cluster.replay(CostShape(shape, weight, mean_tokens)))
    for text in VARIANTS:
        found[text] = best / marks(cluster.replay(fresh(text)))
    return found


def fresh(settings: str) -> Policy:
    """Return a run of lodestar-online that has learned nothing yet."""
    policy = find_policy(",".join(["lodestar-online", *([settings] if settings else [])]))
    made: Policy = policy.fresh()  # type: ignore[union-attr, assignment]
    return made


def objectives(spec: Spec, requests: int) -> dict[str, list[float]]:
    """Return of one cell what each objective gives: mean TTFT, TPOT, E2E, and the share within the SLO."""
    cluster = world(spec, Effort(requests=requests), 0).cluster
    found = {}
    for name, text in OBJECTIVES.items():
        its = cluster.replay(fresh(text))
        half = slice(len(its.ttft_ms) // 2, None)
        means = [float(np.nanmean(ms[half])) for ms in (its.ttft_ms, its.tpot_ms, its.e2e_ms)]
        found[name] = [*means, float(np.mean(its.ttft_ms[half] <= SLO_TTFT_MS))]
    return found


def counterfactuals(spec: Spec, requests: int, decisions: int) -> tuple[Floats, Floats]:
    """Change decisions of one cell one at a time, under the greedy router that knows the engines."""
    cluster: Cluster = world(spec, Effort(requests=requests), 0).cluster
    middle = np.arange(requests // 8, requests * 7 // 8)
    some = np.random.default_rng(1).choice(middle, decisions, replace=False)
    return imposed_delays(cluster, make_policy("greedy-engine-ttft"), sorted(some.tolist()))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Write Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|---|" + "---:|" * (len(head) - 1)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def mean_of(found: Mapping[Spec, dict[str, Floats]], key: str, wanted: Callable[[Spec], bool]) -> str:
    """Return the geometric mean of mean and P99 over the cells that are wanted."""
    logs = [np.log(its[key]) for spec, its in found.items() if wanted(spec)]
    mean, p99 = np.exp(np.mean(logs, axis=0))
    return f"{mean:.2f} / {p99:.2f}"


def columns(found: Mapping[Spec, dict[str, Floats]], key: str) -> list[str]:
    """Return both fleets, chosen on and held out, and the worst cell."""
    cells = [
        mean_of(found, key, lambda spec, fleet=fleet, group=group: spec.fleet == fleet and spec.workload in group)
        for fleet in ("heterogeneous", "homogeneous")
        for group in (CHOSEN_ON, HELD_OUT)
    ]
    return [*cells, f"{min(float(its[key][0]) for its in found.values()):.2f}"]


def page(requests: int, decisions: int, workers: int) -> Iterator[str]:
    """Write the page."""
    yield HEAD.format(requests=f"{requests:,}", chosen=", ".join(CHOSEN_ON), held_out=", ".join(HELD_OUT))
    heads = ("heterogeneous, chosen on", "held out", "homogeneous, chosen on", "held out", "worst mean")
    with ProcessPoolExecutor(workers) as pool:
        every = specs([*CHOSEN_ON, *HELD_OUT])
        found = dict(zip(every, pool.map(partial(factors, requests=requests), every), strict=True))
        yield "## Shapes of the imposed delay, on predictions without error\n"
        yield "`W`: what the request waits before its own prefill; `p`: its own prefill.\n"
        rows = [[SHAPES[s], f"{w:g}", *columns(found, f"{s},{w:g}")] for s, w in TRIED]
        yield from table(("shape", "weight", *heads), rows)
        yield "## `lodestar-online` and its parts\n"
        yield "Cold start and learning included.\n"
        yield from table(
            ("settings", *heads), [[f"`{text}`" if text else "defaults", *columns(found, text)] for text in VARIANTS]
        )
        yield "## Objectives\n"
        yield "Heterogeneous fleet at 75 %, second half of the run.\n"
        cell = [Spec(workload, "heterogeneous", 0.75) for workload in ("sharing28", "diurnal")]
        for spec, its in zip(cell, pool.map(partial(objectives, requests=requests), cell), strict=True):
            rows = [[name, *(f"{ms:,.1f}" for ms in said[:3]), f"{said[3]:.1%}"] for name, said in its.items()]
            heads_of = (spec.workload, "TTFT ms", "TPOT ms", "E2E ms", f"TTFT ≤ {SLO_TTFT_MS:g} ms")
            yield from table(heads_of, rows)
        yield "## What counterfactual replays say\n"
        yield (
            f"One decision changed at random, everything after it decided anew by `greedy-engine-ttft`, TTFT of all "
            f"others within {HORIZON_S:g} s; non-negative least squares, 95 % by bootstrap over decisions.\n"
        )
        cell = [
            Spec("sharing47", fleet, load) for fleet in ("heterogeneous", "homogeneous") for load in (0.5, 0.75, 0.9)
        ]
        changed = pool.map(partial(counterfactuals, requests=1500, decisions=decisions), cell)
        rows = []
        for spec, (terms, delays) in zip(cell, changed, strict=True):
            its_weights = learned_weights(terms, delays)
            ahead, own = its_weights.ahead_interval, its_weights.own_interval
            rows.append(
                [
                    f"{spec.workload}, {spec.fleet}, {spec.load:.0%}",
                    f"{its_weights.ahead:.2f} ({ahead[0]:.2f}–{ahead[1]:.2f})",
                    f"{its_weights.own:.2f} ({own[0]:.2f}–{own[1]:.2f})",
                    f"{its_weights.explained:.1%}",
                    str(its_weights.decisions),
                ]
            )
        yield from table(("cell", "of prefill ahead", "of own prefill", "explained", "decisions"), rows)


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--decisions", type=int, default=800)
    parser.add_argument("--workers", type=int, default=2)
    its = parser.parse_args()
    for line in page(its.requests, its.decisions, its.workers):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
