"""The tables of an evaluation, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import MISSING, decimals, interval, number, percent

__all__ = ["evaluation_grids"]

PREDICTORS: Final = ("model", "against", "constant", "linear")
MOST_FEATURES: Final = 8
#: How a metric of the comparison is called, its unit, and how many of it are one of its own unit.
METRICS: Final = {
    "mae_ms": ("MAE", "ms"),
    "mape": ("MAPE", "%"),
    "bias_ms": ("bias", "ms"),
    "r2": ("R²", ""),
    "r2_log": ("R² log", ""),
    "snips": ("pick against logged", "%"),
    "rank_correlation": ("rank correlation", ""),
    "cost_correlation": ("cost correlation", ""),
}


def evaluation_grids(target: str, found: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Grid]:
    """Return the tables of one target that have something to show, by what they tell, the most important first.

    Args:
        target: such as ``ttft_ms``.
        found: what `models.evaluation.target.evaluate_target` returns.
        names: 'model' and 'against' → what these models are called.
    """
    grids = {"accuracy": _accuracy(target, found)}
    if found["differences"]:
        grids["differences"] = _differences(found["differences"], names)
    if found["quantiles"]:
        grids["quantiles"] = _quantiles(found["quantiles"])
    grids["slices"] = _slices(found["slices"])
    if found["saturation"]:
        grids["saturation"] = _saturation(found["saturation"])
    if found["ranking"]["model"]["decisions"]:
        grids["ranking"] = _ranking(found["ranking"])
    grids["reliability"] = _reliability(found["reliability"])
    if found["controls"]["shuffled"]:
        grids["controls"] = _controls(found["controls"])
    if found["surface"]:
        grids["surface"] = _surface(found["surface"])
    grids["permutation"] = _permutation(found["permutation"])
    grids["shap"] = _shap(found["shap"])
    return grids


def _accuracy(target: str, found: Mapping[str, Any]) -> Grid:
    rows = [(name, found["predictors"][name]) for name in PREDICTORS if name in found["predictors"]]
    errors = [row["mae_ms"]["value"] for _, row in rows]
    best = min((error for error in errors if error is not None), default=None)
    complete = found["rows"] - found["censored"]
    columns = [
        Column("predictor", "", [Cell(name) for name, _ in rows], left=True),
        Column(
            "MAE",
            "ms",
            [_ms(row["mae_ms"], errors, "best" if row["mae_ms"]["value"] == best else "") for _, row in rows],
        ),
        Column("MAPE", "%", [Cell(percent(row["mape"]["value"])) for _, row in rows]),
        Column("bias", "ms", [_ms(row["bias_ms"], errors, signed=True) for _, row in rows]),
        Column("R²", "", [Cell(number(row["r2"]["value"], 3)) for _, row in rows]),
        Column("R² log", "", [_plain(row["r2_log"]) for _, row in rows]),
    ]
    title = f"{target.removesuffix('_ms').upper()}: errors of the mean on {number(complete)} requests"
    notes = ["Second line: 95 % interval, blocks of requests drawn in time order. Bias: predicted − measured."]
    if found["censored"]:
        notes.append(
            f"{number(found['censored'])} requests that were cut off are not among them: the time until then is only "
            "the least that they can have taken. They count in coverage (Kaplan–Meier), saturation and ranking."
        )
    warnings = []
    simpler = [name for name in ("constant", "linear") if name in found["predictors"]]
    for name in simpler:
        if (other := found["predictors"][name]["mae_ms"]["value"]) is not None and other < (errors[0] or 0.0):
            warnings.append(
                f"{'A constant' if name == 'constant' else 'Linear regression'} has the smaller error here."
            )
    return Grid(title, columns, notes, warnings)


def _differences(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Grid:
    cells = [[_named(row["metric"])[0] for row in rows], [_named(row["metric"])[1] for row in rows]]
    columns = [
        Column("metric", "", [Cell(title, unit) for title, unit in zip(*cells, strict=True)], left=True),
        Column("model", "", [_metric(row, row["model"]) for row in rows]),
        Column("against", "", [_metric(row, row["against"]) for row in rows]),
        Column("difference", "", [_metric(row, row["difference"]["value"], row["difference"]) for row in rows]),
        Column("better", "", [_better(row["better"]) for row in rows], left=True),
    ]
    notes = [
        "Difference: model − against on the same complete rows; second line: its paired 95 % interval. Better: where "
        "the interval leaves no doubt. Bias and coverage are best at a value of their own."
    ]
    return Grid(f"{names['model']} against {names['against']}", columns, notes)


def _quantiles(found: Mapping[str, Any]) -> Grid:
    rows = list(found.items())
    losses = [row["pinball_ms"]["value"] for _, row in rows]
    columns = [
        Column("quantile", "", [Cell(name.upper()) for name, _ in rows], left=True),
        Column("covers", "%", [_coverage(row["coverage"], row["share"]) for _, row in rows]),
        Column("pinball loss", "ms", [_ms(row["pinball_ms"], losses) for _, row in rows]),
    ]
    notes = [
        "Covers: share of latencies at or below the quantile as stated at each decision by a model that follows its "
        "own errors, learned when requests finish."
    ]
    if all(row["frozen_coverage"] for _, row in rows):
        frozen = [_coverage(row["frozen_coverage"], row["share"]) for _, row in rows]
        columns.insert(2, Column("frozen covers", "%", frozen))
        notes[0] += " Frozen: by one that does not follow them."
    else:
        notes[0] += " A twin begins without a correction and has to learn it here."
    if bounds := [f"{name.upper()} {_bounds(row['coverage'])}" for name, row in rows if "least" in row["coverage"]]:
        notes.append(f"Whatever the requests that were cut off would have come to: {', '.join(bounds)} %.")
    return Grid("Quantiles: coverage and loss", columns, notes)


def _slices(rows: Sequence[Mapping[str, Any]]) -> Grid:
    kinds = list(dict.fromkeys(row["by"] for row in rows))
    errors = [row["mae_ms"]["value"] for row in rows]
    first = {kind: next(row["slice"] for row in rows if row["by"] == kind) for kind in kinds}
    columns = [
        Column("by", "", [Cell(row["by"] if row["slice"] == first[row["by"]] else "") for row in rows], left=True),
        Column("slice", "", [Cell(row["slice"]) for row in rows], left=True),
        Column("rows", "", [Cell(number(row["rows"]), _cut(row["censored"])) for row in rows]),
        Column("MAE", "ms", [_ms(row["mae_ms"], errors) for row in rows]),
        Column("bias", "ms", [_ms(row["bias_ms"], errors, signed=True) for row in rows]),
    ]
    if any(row["p90_coverage"] for row in rows):
        columns.append(Column("P90 covers", "%", [_coverage(row["p90_coverage"], 0.9) for row in rows]))
    notes = ["By what was known of the chosen instance at the decision. Red: the interval excludes 90 %."]
    if "GPU" not in kinds:
        notes.append("By GPU: the log does not tell which GPU an instance has.")
    return Grid("By slice", columns, notes)


def _saturation(rows: Sequence[Mapping[str, Any]]) -> Grid:
    places = [row["measured_ms"] for row in rows]
    columns = [
        Column("where", "", [Cell(row["where"], f"from {number(row['from_requests'])}") for row in rows], left=True),
        Column("rows", "", [Cell(number(row["rows"]), _cut(row["censored"])) for row in rows]),
        Column("measured", "ms", [Cell(number(row["measured_ms"], decimals(places))) for row in rows]),
        Column("bias", "ms", [_signed_bias(row["bias_ms"], places) for row in rows]),
        Column("bias", "%", [Cell(percent(row["bias_ratio"], signed=True)) for row in rows]),
    ]
    notes = ["Bias: predicted − measured. Red: too optimistic beyond doubt, just where the choice matters most."]
    return Grid("Near saturation", columns, notes)


def _ranking(found: Mapping[str, Any]) -> Grid:
    rows = list(found.items())
    columns = [
        Column("model", "", [Cell(name) for name, _ in rows], left=True),
        Column("decisions", "", [Cell(number(row["decisions"]), _candidates(row)) for _, row in rows]),
        Column("rank correlation", "", [_plain(row["rank_correlation"]) for _, row in rows]),
        Column("cost correlation", "", [_plain(row["cost_correlation"]) for _, row in rows]),
        Column("pick against logged", "%", [_percent(row["snips"], signed=True) for _, row in rows]),
        Column("effective sample", "requests", [Cell(number(row["ess"])) for _, row in rows]),
    ]
    notes = [
        "Rank correlation: of the chosen candidate's predicted place in its decision with how much slower it was than "
        "the request and the cluster explain; cost: of its predicted ms above the mean candidate. Both are the same "
        "if all candidates of a decision are predicted slower by as much.",
        "Pick against logged: mean latency if ONE decision took the lowest prediction and every queue and cache stayed "
        "as logged, by SNIPS; one-step, logged states: no forecast of what the model would do to the cluster.",
    ]
    if all(row["snips"]["value"] is None for _, row in rows):
        notes[1] = "No SNIPS: the log does not tell how likely its choices were."
    return Grid("Ranking of the candidates", columns, notes)


def _reliability(rows: Sequence[Mapping[str, Any]]) -> Grid:
    values = [row["predicted_ms"] for row in rows]
    columns = [
        Column("tenth by prediction", "", [Cell(number(row["decile"])) for row in rows]),
        Column("rows", "", [Cell(number(row["rows"])) for row in rows]),
        Column("predicted mean", "ms", [Cell(number(row["predicted_ms"], decimals(values))) for row in rows]),
        Column("measured mean", "ms", [_within(row, values) for row in rows]),
    ]
    return Grid("Reliability of the mean", columns, ["Red: the interval excludes the prediction."])


def _controls(found: Mapping[str, Any]) -> Grid:
    seeds, mixed = found["seeds"], found["shuffled"]
    places = decimals([seeds["mean_ms"]])
    spread = MISSING if seeds["spread_ms"] is None else number(seeds["spread_ms"], places + 1)
    columns = [
        Column("control", "", [Cell("other seeds"), Cell("shuffled labels")], left=True),
        Column("fits", "", [Cell(number(len(seeds["seeds"]))), Cell(number(len(mixed["seeds"])))]),
        Column("MAE", "ms", [Cell(number(seeds["mean_ms"], places)), Cell(number(mixed["mae_ms"], places))]),
        Column("spread", "ms", [Cell(spread), Cell("")]),
        Column("R² log", "", [Cell(""), Cell(number(mixed["r2_log"], 3), mark="bad" if mixed["leaks"] else "good")]),
    ]
    notes = [
        "Other seeds: the same recipe fitted again; spread: standard deviation. Shuffled labels: what the recipe "
        "learns from labels without meaning; R² log with the level left out, so that a constant has 0; up to "
        f"{number(mixed['limit_r2_log'], 3)} is luck."
    ]
    warnings = (
        ["Shuffled labels predict more than luck: something leaks into the rows judged."] if mixed["leaks"] else []
    )
    return Grid("Controls", columns, notes, warnings)


def _surface(rows: Sequence[Mapping[str, Any]]) -> Grid:
    shown = [row for row in rows if row["waiting_requests"] == "all"]
    columns = [
        Column("step", "", [Cell(row["step"]) for row in shown], left=True),
        Column("rows", "", [Cell(number(row["rows"])) for row in shown]),
        Column("falls", "% of rows", [Cell(percent(row["falls"]), mark=_fallen(row)) for row in shown]),
        Column("mean fall", "%", [Cell(percent(row["mean_fall_ratio"])) for row in shown]),
        Column("worst fall", "%", [Cell(percent(row["worst_fall_ratio"])) for row in shown]),
    ]
    notes = ["How often, and by how much of it, the prediction falls by a step that can only slow an engine down."]
    return Grid("Against physics", columns, notes)


def _fallen(row: Mapping[str, Any]) -> Mark:
    return "good" if row["falls"] == 0.0 else ""


def _permutation(rows: Sequence[Mapping[str, Any]]) -> Grid:
    shown = [row for row in rows if (row["mae_growth_ms"]["value"] or 0.0) > 0.0][:MOST_FEATURES]
    values = [row["mae_growth_ms"]["value"] for row in shown]
    columns = [
        Column("features", "", [Cell(row["features"][0], _others(row["features"][1:])) for row in shown], left=True),
        Column("MAE grows by", "ms", [_ms(row["mae_growth_ms"], values) for row in shown]),
    ]
    notes = ["In random order, one feature or a group that rises and falls together; of the whole model."]
    return Grid("Permutation importance", columns, notes)


def _others(features: Sequence[str]) -> str:
    """Put two names in a line."""
    return ",\n".join(", ".join(features[first : first + 2]) for first in range(0, len(features), 2))


def _shap(rows: Sequence[Mapping[str, Any]]) -> Grid:
    shown = rows[:MOST_FEATURES]
    columns = [
        Column("feature", "", [Cell(row["feature"]) for row in shown], left=True),
        Column("mean |SHAP|", "log", [Cell(number(row["mean_abs"], 4)) for row in shown]),
        Column("direction", "", [Cell(number(row["direction"], 2, signed=True)) for row in shown]),
    ]
    notes = [
        "Of the trees alone, in log(latency / baseline): what the baseline says with a feature is not in it. "
        "Direction: rank correlation of value and contribution."
    ]
    return Grid("SHAP: what moves the trees", columns, notes)


def _named(metric: str) -> tuple[str, str]:
    if metric in METRICS:
        return METRICS[metric]
    quantile, what = metric.split(".")
    return (f"{quantile.upper()} pinball", "ms") if what == "pinball_ms" else (f"{quantile.upper()} covers", "%")


def _metric(row: Mapping[str, Any], value: float | None, bounds: Mapping[str, Any] | None = None) -> Cell:
    unit, signed = _named(row["metric"])[1], bounds is not None or row["metric"] in ("bias_ms", "snips")
    scale = 100.0 if unit == "%" else 1.0
    places = 1 if unit == "%" else decimals([row["model"], row["against"]]) if unit == "ms" else 3
    note = "" if bounds is None else _ends(bounds, places, signed=True, scale=scale)
    return Cell(number(None if value is None else scale * value, places, signed), note)


def _better(word: str | None) -> Cell:
    return Cell(word or "", mark={"model": "good", "against": "bad"}.get(word or "", ""))  # type: ignore[arg-type]


def _ms(found: Mapping[str, Any], among: Sequence[float | None], mark: Mark = "", signed: bool = False) -> Cell:
    places = decimals(among)
    return Cell(number(found["value"], places, signed), _ends(found, places, signed), mark)


def _plain(found: Mapping[str, Any]) -> Cell:
    return Cell(number(found["value"], 3), _ends(found, 3, signed=(found["low"] or 0.0) < 0.0))


def _percent(found: Mapping[str, Any], signed: bool = False) -> Cell:
    value = found["value"]
    return Cell(percent(value, signed=signed), _ends(found, 1, signed, scale=100.0))


def _coverage(found: Mapping[str, Any] | None, share: float) -> Cell:
    if found is None:
        return Cell(MISSING)
    off = found["low"] is not None and not found["low"] <= share <= found["high"]
    return Cell(percent(found["value"]), _ends(found, 1, scale=100.0), "bad" if off else "")


def _ends(found: Mapping[str, Any], places: int, signed: bool = False, scale: float = 1.0) -> str:
    if found["low"] is None or found["high"] is None:
        return ""
    return interval([scale * found["low"], scale * found["high"]], places, signed)


def _signed_bias(found: Mapping[str, Any], among: Sequence[float]) -> Cell:
    optimistic = found["high"] is not None and found["high"] < 0.0
    return _ms(found, among, "bad" if optimistic else "", signed=True)


def _within(row: Mapping[str, Any], among: Sequence[float]) -> Cell:
    found = row["measured_ms"]
    off = found["low"] is not None and not found["low"] <= row["predicted_ms"] <= found["high"]
    return _ms(found, among, "bad" if off else "")


def _bounds(found: Mapping[str, Any]) -> str:
    return f"{percent(found['least'])}–{percent(found['most'])}"


def _cut(censored: int) -> str:
    return f"{number(censored)} cut off" if censored else ""


def _candidates(row: Mapping[str, Any]) -> str:
    return f"of {number(row['candidates'], 1)}" if row["candidates"] else ""
