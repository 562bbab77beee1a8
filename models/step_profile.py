"""Fit the engine model to a profile: a CSV of steps whose work and time were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.models.engine import EngineModel
from lodestar.models.least_squares import Shares, bootstrap, error_ratio, held_out, solve, unidentified

__all__ = ["PROFILE_COLUMNS", "Regime", "StepProfile", "fit_profile", "read_profile"]

Floats = NDArray[np.float64]

#: What a step did: new prompt tokens in one chunk, the tokens of that prompt computed or found before, sequences that
#: decode, tokens of context under *each* of them, and the step's time.
PROFILE_COLUMNS: Final = ("prefill_tokens", "prefill_prefix", "decode_seqs", "decode_ctx", "step_ms")
#: What tells engines apart that share a file.
ENGINE_COLUMNS: Final = ("system", "model", "tp")
DECODE: Final = ("decode_base_ms", "decode_sequence_ms", "context_token_ms")
PREFILL: Final = (
    "prefill_base_ms",
    "prompt_token_ms",
    "prefill_sequence_ms",
    "prefill_context_token_ms",
    "attention_ms",
)
_FOLDS: Final = 5


@dataclass(frozen=True, slots=True)
class Regime:
    """How well the model fits the steps of one regime.

    Attributes:
        rows: steps measured.
        error_ratio: mean absolute relative error over steps that their own fit has not seen, by folds of the rows.
        r2: share of the variance of the time explained there.
    """

    rows: int
    error_ratio: float
    r2: float


@dataclass(frozen=True, slots=True)
class StepProfile:
    """An engine fitted to a profile.

    Attributes:
        engine: the base with the coefficients found.
        standard_errors: of each coefficient that has rows, by bootstrap over blocks of neighbouring rows.
        identified: whether the rows tell each coefficient.
        decode: the fit of steps without prefill, None where there are too few.
        prefill: the fit of steps with prefill, None where there are too few.
        notes: what was not identified, why, and what was taken instead.
        draws: engines of the bootstrap, to carry the uncertainty on.
    """

    engine: EngineModel
    standard_errors: dict[str, float]
    identified: dict[str, bool]
    decode: Regime | None
    prefill: Regime | None
    notes: tuple[str, ...]
    draws: tuple[EngineModel, ...]


@dataclass(frozen=True, slots=True)
class _Fit:
    regime: Regime
    scale: float  # how much slower than the base the measured steps are
    found: dict[str, float]
    draws: Floats
    standard_errors: dict[str, float]
    reasons: dict[str, str]


def read_profile(
    path: Path, system: str | None = None, model: str | None = None, tp: int | None = None, kind: str | None = None
) -> pl.DataFrame:
    """Read the steps of one engine from a CSV with `PROFILE_COLUMNS`; others are there to choose by.

    Args:
        path: the file.
        system: of the rows to take, where the file has that column; so for `model`, `tp` and `kind`.
        model: as it is named there.
        tp: tensor parallelism.
        kind: of steps, where only some are wanted.
    """
    frame = _table(path)
    for column, wanted in (("system", system), ("model", model), ("tp", tp), ("kind", kind)):
        if wanted is not None:
            frame = _chosen(path, frame, column, wanted)
    _require_one_engine(path, frame)
    _require_steps(path, frame)
    return frame


def _table(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_csv(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read as CSV ({first}); expected a header and a step a line") from error
    lacking = [name for name in PROFILE_COLUMNS if name not in frame.columns]
    if lacking:
        raise DataError(
            f"{path}: column {lacking[0]!r} is missing; found {', '.join(frame.columns)[:200]}. "
            f"Name the columns {', '.join(PROFILE_COLUMNS)}"
        )
    return frame


def _chosen(path: Path, frame: pl.DataFrame, column: str, wanted: str | int) -> pl.DataFrame:
    if column not in frame.columns:
        raise ConfigError(f"{path} has no column {column!r} to choose {wanted!r} by. Leave {column} out")
    rows = frame.filter(pl.col(column).cast(pl.String) == str(wanted))
    if rows.is_empty():
        known = ", ".join(sorted(frame[column].cast(pl.String).drop_nulls().unique()))
        raise ConfigError(f"{path}: no step has {column} {wanted!r}; it holds {known[:300]}. Choose one of them")
    return rows


def _require_one_engine(path: Path, frame: pl.DataFrame) -> None:
    told = [name for name in ENGINE_COLUMNS if name in frame.columns]
    engines = frame.select(told).unique(maintain_order=True) if told else frame.head(0)
    if len(engines) > 1:
        named = "; ".join(" ".join(f"{name}={row[name]}" for name in told) for row in engines.iter_rows(named=True))
        raise ConfigError(f"{path} holds steps of {len(engines)} engines: {named}. Choose one by {', '.join(told)}")


def _require_steps(path: Path, frame: pl.DataFrame) -> None:
    numbers = [pl.col(name).cast(pl.Float64, strict=False) for name in PROFILE_COLUMNS]
    bad = pl.any_horizontal(*(~(value.is_finite() & (value >= 0)).fill_null(False) for value in numbers))
    idle = (numbers[0] == 0) & (numbers[2] == 0)
    wrong = frame.with_row_index("line", 1).filter(bad | idle | (numbers[4] == 0))
    if len(wrong):
        step = wrong.select("line", *PROFILE_COLUMNS).row(0, named=True)
        told = ", ".join(f"{name} {value}" for name, value in step.items() if name != "line")
        raise DataError(
            f"{path}: {len(wrong)} of {len(frame)} chosen steps cannot be, the first of them step {step['line']} with "
            f"{told}; expected numbers of at least 0, some work and some time. Correct or remove them"
        )


def fit_profile(steps: pl.DataFrame, base: EngineModel | None = None, seed: int = 0) -> StepProfile:
    """Fit both regimes of the step time by relative least squares, with coefficients of at least zero.

    Steps without prefill cost base + sequences + context tokens; steps with prefill besides them prompt tokens and
    attention work, prefill_tokens · (prefill_prefix + prefill_tokens / 2). What the rows do not tell takes the shape of
    `base` at the scale of the rest, which the notes say. Errors are of rows held out; they say how well the model
    describes this profile, not how well the profile describes an engine that serves.

    >>> steps = pl.DataFrame(
    ...     {
    ...         "prefill_tokens": [0] * 8,
    ...         "prefill_prefix": [0] * 8,
    ...         "decode_seqs": [1, 2, 4, 8, 16, 32, 64, 128],
    ...         "decode_ctx": [100, 900, 300, 800, 200, 700, 400, 500],
    ...     }
    ... )
    >>> time = 5 + 0.1 * pl.col("decode_seqs") + 2e-4 * pl.col("decode_seqs") * pl.col("decode_ctx")
    >>> fit = fit_profile(steps.with_columns(step_ms=time))
    >>> round(fit.engine.decode_base_ms, 2), fit.identified["prompt_token_ms"], fit.notes[0]
    (5.0, False, 'prefill: 0 steps; its coefficients are those of the base, times 1.17')
    """
    base = base or EngineModel()
    time = steps["step_ms"].to_numpy().astype(np.float64)
    work = _work(steps)
    prefills = steps["prefill_tokens"].to_numpy() > 0
    decode = _regime(DECODE, work, time, ~prefills, base, seed)
    prefill = _regime(PREFILL, work, time, prefills, base, seed)
    return _profile(base, work, time, decode, prefill)


def _work(steps: pl.DataFrame) -> dict[str, Floats]:
    """Return how much of each coefficient's kind of work every step did."""
    prompt, prefix, sequences, context, _ = (steps[name].to_numpy().astype(np.float64) for name in PROFILE_COLUMNS)
    one, tokens = np.ones(len(prompt)), sequences * context
    return {
        **dict(zip(DECODE, (one, sequences, tokens), strict=True)),
        **dict(zip(PREFILL, (one, prompt, sequences, tokens, prompt * (prefix + prompt / 2)), strict=True)),
    }


def _regime(
    names: Sequence[str], work: dict[str, Floats], time: Floats, rows: NDArray[np.bool_], base: EngineModel, seed: int
) -> _Fit | None:
    if rows.sum() < 2 * len(names):
        return None
    measured = time[rows]
    shares = np.column_stack([work[name][rows] for name in names]) / measured[:, None]
    shape = np.array([getattr(base, name) for name in names])
    scale = 1 / float((shares @ shape).mean()) if shape.any() else 1.0
    problem = Shares(shares, prior=shape * scale)
    found = solve(problem)
    draws = bootstrap(problem, block=round(len(shares) ** (1 / 3)), seed=seed)
    errors = draws.std(axis=0, ddof=1)
    sums = held_out(problem, np.random.default_rng(seed).permutation(len(shares)) % _FOLDS)
    spread = float(((measured - measured.mean()) ** 2).sum())
    r2 = 1 - float(((sums - 1) ** 2 * measured**2).sum()) / spread if spread else float("nan")
    return _Fit(
        regime=Regime(len(shares), error_ratio(sums), r2),
        scale=scale,
        found=dict(zip(names, found.tolist(), strict=True)),
        draws=draws,
        standard_errors=dict(zip(names, errors.tolist(), strict=True)),
        reasons=unidentified(names, shares, found, errors),
    )


def _profile(
    base: EngineModel, work: dict[str, Floats], time: Floats, decode: _Fit | None, prefill: _Fit | None
) -> StepProfile:
    fits = [fit for fit in (decode, prefill) if fit]
    if not fits:
        raise DataError(
            f"the profile has {len(time)} steps, too few of either kind; expected {2 * len(DECODE)} without prefill "
            f"or {2 * len(PREFILL)} with it. Measure more"
        )
    known: dict[str, Any] = {name: value for fit in fits for name, value in fit.found.items()}
    notes = [f"{name}: {reason}" for fit in fits for name, reason in fit.reasons.items()]
    for kind, names, fit in (("decode", DECODE, decode), ("prefill", PREFILL, prefill)):
        if fit is None:
            scale = fits[0].scale
            known |= {name: getattr(base, name) * scale for name in names}
            rows = int((work[PREFILL[1]] > 0).sum() if names is PREFILL else (work[PREFILL[1]] == 0).sum())
            notes.insert(0, f"{kind}: {rows} steps; its coefficients are those of the base, times {scale:.2f}")
    engine = replace(base, **known)
    return StepProfile(
        engine=engine,
        standard_errors={name: error for fit in fits for name, error in fit.standard_errors.items()},
        identified={
            name: any(name in fit.found and name not in fit.reasons for fit in fits) for name in (*DECODE, *PREFILL)
        },
        decode=decode.regime if decode else None,
        prefill=prefill.regime if prefill else None,
        notes=tuple(notes),
        draws=_engines(engine, fits),
    )


def _engines(engine: EngineModel, fits: Sequence[_Fit]) -> tuple[EngineModel, ...]:
    names = [name for fit in fits for name in fit.found]
    drawn = np.hstack([fit.draws for fit in fits])
    return tuple(replace(engine, **dict(zip(names, row.tolist(), strict=True))) for row in drawn)
