"""A step-time profile gives the engine it was measured on, with what it cannot tell."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import traces_folder
from lodestar.data.errors import ConfigError, DataError
from lodestar.models.engine import COEFFICIENTS, PRESET_METADATA, EngineModel, presets
from lodestar.models.step_profile import DECODE, PREFILL, fit_profile, read_profile

TRUTH = EngineModel.preset("a100-llama-70b-tp4")
PUBLISHED = traces_folder().parent / "reference" / "engine"


def steps(noise: float = 0.0, context: tuple[int, ...] = (128, 512, 2048), prefill: bool = True) -> pl.DataFrame:
    """The time of the true engine at a grid of work, with noise by step."""
    prompts = product((128, 512, 2048), (0, 4096)) if prefill else ()
    prompts = [*prompts, *[(0, 0)] * 3]
    rng, rows = np.random.default_rng(7), []
    for (prompt, prefix), sequences, each in product(prompts, (1, 8, 32, 128), context):
        time = TRUTH.step_ms(
            prompt_tokens=prompt,
            decoding=sequences,
            context_tokens=sequences * each,
            attention=prompt * (prefix + prompt / 2),
        )
        rows.append((prompt, prefix, sequences, each, time * np.exp(noise * rng.standard_normal())))
    return pl.DataFrame(
        rows, schema=["prefill_tokens", "prefill_prefix", "decode_seqs", "decode_ctx", "step_ms"], orient="row"
    )


def errors(engine: EngineModel, truth: EngineModel = TRUTH) -> dict[str, float]:
    return {name: abs(getattr(engine, name) / getattr(truth, name) - 1) for name in COEFFICIENTS}


def test_steps_without_noise_give_the_engine_back() -> None:
    fit = fit_profile(steps())
    assert max(errors(fit.engine).values()) < 1e-3
    assert all(fit.identified.values())
    assert not fit.notes


def test_the_standard_errors_cover_the_truth_under_noise() -> None:
    fit = fit_profile(steps(noise=0.05))
    for name, error in fit.standard_errors.items():
        assert abs(getattr(fit.engine, name) - getattr(TRUTH, name)) < 4 * error, name


def test_the_error_is_that_of_rows_held_out() -> None:
    fit = fit_profile(steps(noise=0.05))
    assert fit.decode is not None
    assert fit.prefill is not None
    mean_of_noise = 0.05 * np.sqrt(2 / np.pi)
    assert fit.decode.error_ratio == pytest.approx(mean_of_noise, rel=0.4)
    assert fit.prefill.error_ratio == pytest.approx(mean_of_noise, rel=0.4)
    assert fit.prefill.r2 > 0.95


def test_the_same_seed_gives_the_same_draws() -> None:
    assert fit_profile(steps(0.05), seed=3).draws == fit_profile(steps(0.05), seed=3).draws


def test_one_context_for_all_tells_sequences_and_their_tokens_together_only() -> None:
    fit = fit_profile(steps(context=(512,)))
    assert not fit.identified["decode_sequence_ms"]
    assert not fit.identified["context_token_ms"]
    assert fit.identified["decode_base_ms"]
    assert "decode_sequence_ms: the rows do not tell it from context_token_ms" in fit.notes
    both = fit.engine.decode_sequence_ms + 512 * fit.engine.context_token_ms
    assert both == pytest.approx(TRUTH.decode_sequence_ms + 512 * TRUTH.context_token_ms, rel=0.01)


def test_without_prefill_steps_its_coefficients_follow_the_base_and_the_notes_say_so() -> None:
    fit = fit_profile(steps(prefill=False), base=TRUTH.slowed(0.5))
    assert fit.prefill is None
    assert not any(fit.identified[name] for name in PREFILL)
    assert "prefill: 0 steps; its coefficients are those of the base, times 2.00" in fit.notes
    assert max(errors(fit.engine).values()) < 0.01


def test_too_few_steps_are_an_error_that_counts_them() -> None:
    with pytest.raises(DataError, match="the profile has 5 steps, too few of either kind"):
        fit_profile(steps().head(5))


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    two = [steps().with_columns(system=pl.lit(gpu), tp=1, kind=pl.lit("mixed")) for gpu in ("a", "b")]
    pl.concat(two).write_csv(tmp_path / "steps.csv")
    return tmp_path / "steps.csv"


def test_two_engines_in_a_file_are_listed(profile: Path) -> None:
    with pytest.raises(ConfigError, match="holds steps of 2 engines: system=a tp=1; system=b tp=1"):
        read_profile(profile)
    assert len(read_profile(profile, system="a", tp=1, kind="mixed")) == len(steps())


def test_an_engine_that_the_file_lacks_is_answered_with_those_it_has(profile: Path) -> None:
    with pytest.raises(ConfigError, match="no step has system 'c'; it holds a, b"):
        read_profile(profile, system="c")
    with pytest.raises(ConfigError, match="has no column 'model'"):
        read_profile(profile, model="m")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), None])
def test_a_step_that_takes_no_time_is_refused_with_its_place(tmp_path: Path, value: float | None) -> None:
    path = tmp_path / "steps.csv"
    steps().with_columns(
        step_ms=pl.when(pl.int_range(pl.len()) == 2).then(pl.lit(value, pl.Float64)).otherwise("step_ms")
    ).write_csv(path)
    with pytest.raises(DataError, match="1 of 108 chosen steps cannot be, the first of them step 3"):
        read_profile(path)


def test_a_missing_column_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    steps().drop("decode_ctx").write_csv(tmp_path / "steps.csv")
    with pytest.raises(DataError, match="column 'decode_ctx' is missing"):
        read_profile(tmp_path / "steps.csv")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_profile(tmp_path / "none.csv")


def test_every_preset_is_an_engine_with_its_errors_and_sources() -> None:
    known = {field.name for field in fields(EngineModel)} | set(PRESET_METADATA)
    for name, told in presets().items():
        assert set(told) <= known, name
        assert set(PRESET_METADATA) <= set(told), name
        assert 0 < told["decode_error_ratio"] < 0.1, name
        assert EngineModel.preset(name).kv_capacity_tokens == told["kv_capacity_tokens"] > 0


#: Preset → what its samples are called.
SAMPLED = {
    "h100-llama-3.1-8b": ("h100_sxm", "meta-llama/Meta-Llama-3.1-8B", 1),
    "h200-llama-3.1-8b": ("h200_sxm", "meta-llama/Meta-Llama-3.1-8B", 1),
    "b200-llama-3.1-8b": ("b200_sxm", "meta-llama/Meta-Llama-3.1-8B", 1),
    "a100-llama-3.1-8b": ("a100_sxm", "meta-llama/Meta-Llama-3.1-8B", 1),
    "l40s-llama-3.1-8b": ("l40s", "meta-llama/Meta-Llama-3.1-8B", 1),
    "h100-qwen3-8b": ("h100_sxm", "Qwen/Qwen3-8B", 1),
    "h100-qwen3-32b-tp2": ("h100_sxm", "Qwen/Qwen3-32B", 2),
    "h100-llama-70b-tp4": ("h100_sxm", "meta-llama/Meta-Llama-3.1-70B", 4),
    "h200-llama-70b-tp4": ("h200_sxm", "meta-llama/Meta-Llama-3.1-70B", 4),
    "a100-llama-70b-tp4": ("a100_sxm", "meta-llama/Meta-Llama-3.1-70B", 4),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_published_samples_give_the_published_coefficients_and_the_preset(name: str) -> None:
    if not PUBLISHED.is_dir():
        pytest.skip(f"no published samples at {PUBLISHED}")
    system, model, tp = SAMPLED[name]
    fit = fit_profile(read_profile(PUBLISHED / "aic_step_samples.csv", system, model, tp))
    decode, prefill = json.loads((PUBLISHED / "two_regime_coeffs.json").read_text())[f"AIC|{system}|{model}|{tp}"]
    published = dict(zip((*DECODE, *PREFILL), [*decode, *prefill], strict=True))
    preset, told = EngineModel.preset(name), presets()[name]
    for coefficient, value in published.items():
        assert getattr(fit.engine, coefficient) == pytest.approx(value, rel=0.01)
        assert getattr(preset, coefficient) == value
    assert all(fit.identified.values())
    # Rows held out err a little more than those fitted, which the preset's errors are of.
    assert fit.decode is not None
    assert fit.prefill is not None
    assert told["decode_error_ratio"] == pytest.approx(fit.decode.error_ratio, rel=0.1)
    assert told["prefill_error_ratio"] == pytest.approx(fit.prefill.error_ratio, rel=0.1)
