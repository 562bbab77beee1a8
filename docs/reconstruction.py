"""How well a log's gaps are filled, as tables: ``python docs/reconstruction.py TRACES > docs/reconstruction.md``.

TRACES holds ``lodestar/sharing09`` and ``lodestar/sharing47``: see ``tests/conftest.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lodestar.data import schema as s
from lodestar.data.ingest import ingest
from lodestar.data.log import Floats, RequestLog
from lodestar.data.reconstruction.arms import aligned, held_out, own_arm
from lodestar.data.reconstruction.arrivals import inflight_by_instance
from lodestar.data.reconstruction.lengths import infer_output_tokens
from lodestar.data.reconstruction.own import own_share
from lodestar.data.reconstruction.prefix_groups import infer_groups_jointly, reproduced
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace

ARMS = ("random", "prefix", "rl")
BLOCK_TOKENS = 16
#: What knows the true arrivals of each arm; `random` has none of its own: `rl` got the same requests on the same clock.
TRUTH = {
    "sharing09-random": "klog-rl",
    "sharing09-prefix": "klog-prefix",
    "sharing09-rl": "klog-rl",
    "klog-prefix": "klog-prefix",
    "klog-rl": "klog-rl",
}
INTRODUCTION = """# What logs leave out, and how well it is inferred

Printed by `python docs/reconstruction.py TRACES`. `sharing09` and `sharing47` are the logs of one cluster of 7 engines
that served the same requests under three routers. The CSV logs have no arrival times; the klogs of two arms of
sharing09 have them, and they are withheld here and used only to judge. The smoothing of arrivals and the rules for
joining groups were chosen with these logs in view, so expect somewhat larger errors on others.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def load(traces: Path) -> dict[str, RequestLog]:
    """Ingest every log of the two streams."""
    files = {f"{load}-{arm}": f"{load}/{arm}.csv.gz" for load in ("sharing09", "sharing47") for arm in ARMS}
    files |= {f"klog-{arm}": f"sharing09/{arm}.klog.gz" for arm in ("prefix", "rl")}
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        for name, file in files.items():
            ingest(workspace, [traces / "lodestar" / file], name)
        with open_store(workspace) as con:
            return {name: load_log(con, name) for name in files}


def arrivals(logs: dict[str, RequestLog]) -> str:
    """Return the errors of inferred arrivals, and how often they give back what was logged in flight."""
    rows = []
    for name, log in logs.items():
        withheld = replace(log, arrived_at_s=np.full(len(log), np.nan))
        inferred = workload_of(withheld).arrived_at_s
        rate, spread, exact = "", "", ""
        if name in TRUTH:
            truth = true_arrivals(log, logs[TRUTH[name]])
            known = ~np.isnan(truth)
            rate = f"{np.ptp(truth[known]) / np.ptp(inferred[known]) - 1:+.2%}"
            spread = f"{(inferred - truth)[known].std():.2f}"
            if known.all():
                exact = f"{counts(log, np.maximum.accumulate(truth))[1]:.1%}"
        total, each, alike = counts(log, inferred)[0], counts(log, inferred)[1], counts(log, inferred)[2]
        rows.append((name, len(log), rate, spread, f"{total:.4f}", f"{alike:.4f}", f"{each:.1%}", exact))
    head = ("log", "requests", "rate error", "sd of errors, s", "totals: correlation", "instances: correlation",
            "instances: exact", "with the true arrivals")  # fmt: skip
    return table(head, rows)


def true_arrivals(log: RequestLog, klog: RequestLog) -> Floats:
    """Join the logged arrivals of a klog by request id."""
    known = dict(zip(klog.request_id, klog.arrived_at_s.tolist(), strict=True))
    return np.array([known.get(request, np.nan) for request in log.request_id])


def counts(log: RequestLog, arrived_at_s: Floats) -> tuple[float, float, float]:
    """Compare what is in flight by these arrivals with the log: correlation of totals, exact counts, correlation."""
    logged = log.snapshot[s.INFLIGHT_REQUESTS]
    counted = inflight_by_instance(arrived_at_s, log.e2e_ms / 1e3, log.chosen, logged.shape[1])
    total = np.corrcoef(counted.sum(axis=1), logged.sum(axis=1))[0, 1]
    return float(total), float(np.mean(counted == logged)), float(np.corrcoef(counted.ravel(), logged.ravel())[0, 1])


def groups(logs: dict[str, RequestLog]) -> str:
    """Return, for groups inferred from each set of arms, how many requests of each arm have every hit reproduced."""
    rows = []
    for load in ("sharing09", "sharing47"):
        first = logs[f"{load}-{ARMS[0]}"]
        arms = {arm: aligned(first, logs[f"{load}-{arm}"]) for arm in ARMS}
        for size in (1, 2, 3):
            for used in combinations(ARMS, size):
                found = infer_groups_jointly(first.prompt_tokens, [arms[arm] for arm in used], BLOCK_TOKENS)
                told = {arm: reproduced(found, BLOCK_TOKENS, first.prompt_tokens, arms[arm]) for arm in ARMS}
                shown = (f"{told[arm]:.1%}" if arm in used else f"*{told[arm]:.1%}*" for arm in ARMS)
                rows.append((f"{load}: {', '.join(used)}", len(found.size), *shown))
    return table(("groups from", "groups", *ARMS), rows)


def own_workloads(logs: dict[str, RequestLog]) -> str:
    """Return the two figures that `inspect` shows of each log's groups."""
    rows = []
    for load in ("sharing09", "sharing47"):
        for arm in ARMS:
            log = logs[f"{load}-{arm}"]
            others = [aligned(log, logs[f"{load}-{other}"]) for other in ARMS if other != arm]
            alone = workload_of(log).found
            figure = next(one.quality for one in alone if one.column == "blocks")
            joint = workload_of(log, arms=[logs[f"{load}-{other}"] for other in ARMS if other != arm]).found
            together = next(one.quality for one in joint if one.column == "blocks")
            told = held_out(log.prompt_tokens, [own_arm(log), *others], BLOCK_TOKENS)
            rows.append((f"{load}-{arm}", f"{figure:.1%}", f"{together:.1%}", f"{told:.1%}"))
    return table(("log", "from its own hits", "from every arm's", "from the other arms' alone"), rows)


def counters(logs: dict[str, RequestLog]) -> str:
    """Return the evidence on when the in-flight count was read, and the quality of the counters that were rebuilt."""
    rows = []
    for name, log in logs.items():
        share, later = (own_share(one, s.INFLIGHT_REQUESTS) for one in (log, after_the_decision(log)))
        rebuilt = complete_snapshot(log, workload_of(log))[1].values()
        fit = next((f"{one.quality:.4f}" for one in rebuilt if one.quality is not None), "")
        said = "after" if share.is_inside else "before"
        columns = ", ".join(one.column for one in rebuilt) or "none"
        rows.append((name, said, f"{share.excess:+.2f}", f"{later.excess:+.2f}", columns, fit))
    head = ("log", "in flight is read … the decision", "own share", "had it been read after", "rebuilt", "fit")
    return table(head, rows)


def after_the_decision(log: RequestLog) -> RequestLog:
    """Return the log as a router that counts the request first would have written it."""
    inflight = log.snapshot[s.INFLIGHT_REQUESTS].copy()
    inflight[np.arange(len(log)), log.chosen] += 1
    return replace(log, snapshot={**log.snapshot, s.INFLIGHT_REQUESTS: inflight})


def lengths(logs: dict[str, RequestLog]) -> str:
    """Return how well output lengths come out where every second one is withheld."""
    rows = []
    for name, log in logs.items():
        hidden = np.arange(len(log)) % 2 == 1
        told, found = infer_output_tokens(replace(log, output_tokens=np.where(hidden, -1, log.output_tokens)))
        off = np.abs(told - log.output_tokens)[hidden]
        figure = found.quality if found and found.quality is not None else float("nan")
        close = np.mean(off <= np.maximum(log.output_tokens[hidden] / 20, 1))
        rows.append((name, f"{np.median(off):.0f}", f"{close:.1%}", f"{figure:.1%}"))
    return table(("log", "median error, tokens", "within 5 %", "as the log itself says"), rows)


def main(traces: Path) -> None:
    """Print the document."""
    logs = load(traces)
    print(INTRODUCTION)
    print("## Arrival times, withheld\n")
    print("The last column is the share of exact counts that the true arrivals themselves give: a router counts a")
    print("request some 50 ms after it arrived, and some of its counters lose completions.\n")
    print(arrivals(logs))
    print("## Prefix groups\n")
    print("The share of an arm's requests whose hits all come out within one percentage point when its logged choices")
    print("are replayed through a router's prefix index. Arms in italics had no part in the groups: one arm alone")
    print("explains itself by groups that are mostly not the true ones, several arms by groups that mostly are.\n")
    print(groups(logs))
    print("What `workload_of` gives for each log:\n")
    print(own_workloads(logs))
    print("## Counters\n")
    print("*Own share*: by how much more a counter grows where the decision itself goes than where the one before it")
    print("went; near -1 it is read before the decision, near 1 after it.\n")
    print(counters(logs))
    print("## Output lengths, every second one withheld\n")
    print(lengths(logs), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
