"""The tables of `lodestar validate`, one a part and question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, number, percent

__all__ = [
    "COVERED",
    "arms_grid",
    "coverage_grid",
    "derivatives_grid",
    "load_balancing_grid",
    "own_logs_grid",
    "queueing_estimators_grid",
    "queueing_grid",
    "queueing_others_grid",
    "targets_grid",
]

Row = Mapping[str, Any]
Rows = Sequence[Row]

#: Where the coverage of nominal 95 % intervals should lie.
COVERED: Final = (0.91, 0.99)
#: Less than this judges no target: a quick run shows what it found, and no more.
FEWEST_REPETITIONS: Final = 300
FEWEST_REQUESTS: Final = 100_000


def targets_grid(document: Row) -> Grid:
    """Return every target with what was measured and whether it is met."""
    rows = [*_queueing_targets(document), *_coverage_targets(document)]
    columns = [
        _left("target", [row["target"] for row in rows]),
        _left("wanted", [row["wanted"] for row in rows]),
        Column("measured", "", [Cell(_measured(row)) for row in rows]),
        Column("verdict", "", [_met(row["met"]) for row in rows], left=True),
    ]
    return Grid("Targets", columns)


def queueing_grid(found: Row) -> Grid:
    """Return one row a policy: true performance, and the replay calibrated from the log."""
    rows = found["rows"]
    columns = [
        _left("policy", [row["policy"] for row in rows]),
        Column("true mean", "ms", [Cell(_ms(row["truth_mean_ms"]), _state(row)) for row in rows]),
        Column("replayed", "ms", [Cell(_ms(row["replayed"]["mean_ms"]), _flags(row["replayed"])) for row in rows]),
        Column("error", "%", [_error(row["replayed"]["relative_error"]) for row in rows]),
        Column("true P99", "ms", [Cell(_ms(row["truth_p99_ms"])) for row in rows]),
        Column("error of P99", "%", [_error(row["replayed"]["p99_relative_error"]) for row in rows]),
    ]
    return Grid("Queueing world: the replay calibrated from its log", columns)


def queueing_others_grid(found: Row) -> Grid:
    """Return one row a policy: what one step says, read as a performance, and what a wrong simulator says."""
    rows = found["rows"]
    columns = [
        _left("policy", [row["policy"] for row in rows]),
        Column("one step, true", "ms", [Cell(_ms(row["e1_truth_ms"])) for row in rows]),
        Column("one step, dr", "ms", [Cell(_ms(row["estimators"]["dr"]["value_ms"])) for row in rows]),
        Column("dr as performance", "%", [_error(_as_performance(row)) for row in rows]),
        Column("wrong simulator", "%", [_error(row["misspecified"]["relative_error"]) for row in rows]),
        Column("× log ratio", "%", [_error(row["misspecified"]["corrected_relative_error"]) for row in rows]),
    ]
    return Grid("Queueing world: one step and a wrong simulator, read as performance", columns)


def queueing_estimators_grid(found: Row) -> Grid:
    """Return one row a one-step estimator: right as what it claims, and what it is worth as a performance."""
    summary = found["summary"]
    worst = summary["one_step_worst_error"]
    names = list(worst)
    columns = [
        _left("estimator", names),
        Column("worst error as one step", "%", [_error(worst[name], signed=False) for name in names]),
        Column("intervals that hold", "%", [Cell(percent(summary["one_step_covered"][name], 0)) for name in names]),
        Column("τ with performance", "", [Cell(number(summary["kendall_tau"].get(name), 2)) for name in names]),
    ]
    return Grid("Queueing world: one-step estimators over all policies", columns)


def derivatives_grid(found: Row) -> Grid:
    """Return one row a policy: the true derivative towards it, and D_H from logs."""
    rows = [row for row in found["rows"] if row["derivative"]]
    of = [row["derivative"] for row in rows]
    places = decimals([each["truth_ms"] for each in of])
    columns = [
        _left("policy", [row["policy"] for row in rows]),
        Column("truth (ms)", "", [_with_se(each["truth_ms"], each["truth_se_ms"], places) for each in of]),
        Column("D_H (ms)", "", [_with_se(each["value_ms"], each["se_ms"], places) for each in of]),
        Column("standard errors apart", "", [Cell(number(each["z"], 1, signed=True)) for each in of]),
        Column("single logs within two", "", [Cell(f"{each['logs_within_two_se']} of {each['logs']}") for each in of]),
        Column("horizon (requests)", "", [Cell(number(each["horizon_requests"])) for each in of]),
    ]
    return Grid("Queueing world: closed-loop derivatives from the log alone", columns)


def load_balancing_grid(found: Row) -> Grid:
    """Return one row a method: each policy foretold from the logs of the others."""
    rows = [row for row in found["summary"] if "mean_error" in row]
    columns = [
        _left("method", [row["method"] for row in rows]),
        Column("MAPE of latencies", "%", [Cell(percent(row["mape"])) for row in rows]),
        Column("error of the mean", "%", [_with_largest(row["mean_error"], row["largest_error"]) for row in rows]),
        Column("τ over policies", "", [Cell(number(row["kendall_tau"], 2)) for row in rows]),
        Column("error as one step", "%", [Cell(percent(row.get("one_step_mean_error"))) for row in rows]),
    ]
    return Grid("Load-balancing world: leave one policy out", columns)


def own_logs_grid(found: Row) -> Grid:
    """Return one row a world: the calibrated replay of its log against the cluster that made it."""
    rows = found["summary"]
    dr = [row["one_step"].get("dr", {}) for row in rows]
    columns = [
        Column("world", "", [Cell(row["world"], ", ".join(row["verdicts"])) for row in rows], left=True),
        Column("error of the mean", "%", [_with_largest(row["mean_error"], row["largest_error"]) for row in rows]),
        Column("error of P99", "%", [Cell(percent(row["p99_mean_error"])) for row in rows]),
        Column("τ over policies", "", [Cell(number(row["kendall_tau"], 2)) for row in rows]),
        Column("truth in interval", "%", [Cell(percent(row["in_interval"], 0)) for row in rows]),
        Column("dr as one step", "%", [Cell(percent(each.get("one_step_mean_error"))) for each in dr]),
        Column("dr as performance", "%", [Cell(percent(each.get("mean_error_as_performance"))) for each in dr]),
    ]
    return Grid("The replay's own logs: known clusters, of which only the log is used", columns)


def arms_grid(found: Row) -> Grid:
    """Return one row an arm of a real cluster: foretold from the log of its `random` arm."""
    rows = found["rows"]
    verdict = {row["cluster"]: row["verdict"] for row in found["summary"]}
    columns = [
        Column("cluster", "", [Cell(row["cluster"], verdict[row["cluster"]]) for row in rows], left=True),
        Column("arm", "", [Cell(row["arm"], row["replayed"]) for row in rows], left=True),
        Column("measured", "ms", [Cell(_ms(row["measured_mean_ms"])) for row in rows]),
        Column("foretold", "ms", [Cell(_ms(row["predicted_mean_ms"])) for row in rows]),
        Column("error", "%", [_error(row["error_mean"]) for row in rows]),
        Column("its hits known", "%", [_error(row.get("error_mean_hits_known")) for row in rows]),
        Column("error of P99", "%", [_error(row["error_p99"]) for row in rows]),
        Column("one-step dr", "%", [_error(row["one_step_error"].get("dr")) for row in rows]),
    ]
    return Grid("Measured arms of real clusters", columns)


def coverage_grid(rows: Rows, title: str) -> Grid:
    """Return one row a setting: how often each nominal 95 % interval held, and half of its width."""
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    kinds = list(dict.fromkeys(row["interval"] for row in rows))
    of = {(row["setting"], row["interval"]): row for row in rows}
    columns = [_left("setting", settings)]
    columns += [Column(_short(kind), "", [_covered(of.get((each, kind))) for each in settings]) for kind in kinds]
    return Grid(title, columns)


def _short(kind: str) -> str:
    return kind.replace("empirical-bernstein", "emp. Bernstein").replace("confidence-sequence", "sequence")


def _with_largest(mean: float, largest: float) -> Cell:
    return Cell(percent(mean), f"≤ {percent(largest)}")


def _queueing_targets(document: Row) -> list[dict[str, Any]]:
    if "queueing" not in document:
        return []
    found = document["queueing"]
    whole = found["requests"] >= FEWEST_REQUESTS
    return [{**row, "met": row["met"] if whole else None} for row in found["summary"]["targets"]]


def _coverage_targets(document: Row) -> list[dict[str, Any]]:
    found = document.get("coverage")
    if not found:
        return []
    rows = []
    for name, part, kinds in (
        ("in the settings of the bandits", "bandits", ("snipw", "dr")),
        ("by blocks, on replayed logs", "replayed", ("snipw by blocks", "dr by blocks")),
    ):
        counted = [row for row in found[part] if row["interval"] in kinds]
        if not counted:
            continue
        few = min(row["repetitions"] for row in counted) < FEWEST_REPETITIONS
        told = [row["coverage"] for row in counted]
        low, high = min(told), max(told)
        rows.append(
            {
                "target": f"coverage of 95 % intervals of snipw and dr {name}",
                "wanted": f"{COVERED[0]} to {COVERED[1]}",
                "measured": f"{low:.3f} to {high:.3f}",
                "met": None if few else bool(COVERED[0] <= low and high <= COVERED[1]),
            }
        )
    return rows


def _left(title: str, texts: Sequence[str]) -> Column:
    return Column(title, "", [Cell(text) for text in texts], left=True)


def _ms(value: float | None) -> str:
    return number(value, 0 if value is None or abs(value) >= 1000 else 1)


def _with_se(value: float, se: float, places: int) -> Cell:
    return Cell(f"{number(value, places, signed=True)} ± {number(se, places)}")


def _error(value: float | None, signed: bool = True) -> Cell:
    return Cell(percent(value, signed=signed))


def _as_performance(row: Row) -> float | None:
    value = row["estimators"]["dr"]["value_ms"]
    return None if value is None else value / row["truth_mean_ms"] - 1


def _state(row: Row) -> str:
    return _flags({"unstable": row["truth_unstable"], "path_dependent": row["truth_path_dependent"]})


def _flags(found: Row) -> str:
    words = {"unstable": "unstable", "path_dependent": "path-dependent"}
    return ", ".join(word for name, word in words.items() if found[name])


def _covered(row: Row | None) -> Cell:
    if row is None:
        return Cell(number(None))
    mark: Mark = "" if COVERED[0] <= row["coverage"] <= COVERED[1] else "bad"
    half = row["mean_width"] / 2
    return Cell(f"{row['coverage']:.3f}", f"± {number(half, 0 if half > 1 else 3)}", mark)


def _measured(target: Row) -> str:
    value = target["measured"]
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, str):
        return value
    return f"{percent(value, 2)} %" if target["wanted"].endswith("%") else number(value, 3)


def _met(met: bool | None) -> Cell:
    if met is None:
        return Cell("too small to judge")
    return Cell("met", mark="good") if met else Cell("missed", mark="bad")
