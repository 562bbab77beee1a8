"""Properties of the transforms, over workloads at random, and what they do to real traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.log import Workload
from lodestar.data.workloads.measure import facts, seen_before_ratio
from lodestar.data.workloads.transforms import (
    cut_prompts,
    extend,
    merge,
    pick,
    prefix_groups,
    rescale_blocks,
    scale_outputs,
    scale_rate,
    shift_rate,
    slice_rows,
    slice_time,
    switch,
    thin,
    warp,
)  # fmt: skip
from lodestar.data.workloads.transforms.thin import _common_blocks
from workload_making import made, same, sessions, workloads

TINY = 1e-6


def equalities(workload: Workload, rows: np.ndarray | None = None) -> np.ndarray:
    """Say for every two blocks of the given requests whether they are the same."""
    count = np.diff(workload.block_offsets)
    owner = np.repeat(np.arange(len(workload)), count)
    ids = workload.block_ids if rows is None else workload.block_ids[np.isin(owner, rows)]
    return np.asarray(ids[:, None] == ids[None, :])


def same_sessions(numbers: np.ndarray, names: np.ndarray) -> bool:
    """Tell whether two name the same conversations, the first by numbers from 0 in the order in which they begin."""
    number: dict[int, int] = {}
    return numbers.tolist() == [-1 if name == -1 else number.setdefault(name, len(number)) for name in names.tolist()]


def tokens(workload: Workload) -> tuple[int, int, int]:
    return len(workload), int(workload.prompt_tokens.sum()), int(workload.output_tokens.sum())


def assert_sound(workload: Workload) -> None:
    assert workload.arrived_at_s[0] == 0
    assert (np.diff(workload.arrived_at_s) >= 0).all()
    assert np.unique(workload.block_ids).tolist() == list(range(workload.block_ids.max(initial=-1) + 1))
    assert workload.block_offsets[-1] == len(workload.block_ids)
    assert len(workload.block_offsets) == len(workload) + 1


@given(workload=workloads(), data=st.data())
def test_what_is_picked_keeps_its_lengths_and_its_shared_blocks(workload: Workload, data: st.DataObject) -> None:
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, len(workload) - 1), min_size=1))))
    kept = pick(workload, rows)
    assert_sound(kept)
    assert kept.prompt_tokens.tolist() == workload.prompt_tokens[rows].tolist()
    assert kept.output_tokens.tolist() == workload.output_tokens[rows].tolist()
    assert np.array_equal(equalities(kept), equalities(workload, rows))
    assert same_sessions(sessions(kept), sessions(workload)[rows])


@given(workload=workloads(), at_s=st.floats(0.001, 70))
def test_two_slices_of_time_are_the_whole(workload: Workload, at_s: float) -> None:
    count = int((workload.arrived_at_s < at_s).sum())
    early = slice_time(workload, to_s=at_s)
    assert same(early, slice_rows(workload, 0, count))
    if count < len(workload):
        late = slice_time(workload, at_s)
        assert tuple(a + b for a, b in zip(tokens(early), tokens(late), strict=True)) == tokens(workload)
        assert same(late, slice_rows(workload, count))


@given(workload=workloads(), ratio=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_thinning_keeps_the_share_asked_for(workload: Workload, ratio: float, seed: int) -> None:
    wanted = round(ratio * len(workload))
    assume(wanted)
    kept = thin(workload, ratio, seed)
    assert len(kept) == wanted
    assert_sound(kept)
    assert same(kept, thin(workload, ratio, seed))
    assert same(thin(workload, 1.0, seed), workload, TINY)


@given(workload=workloads(), ratio=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_thinning_by_group_keeps_groups_whole(workload: Workload, ratio: float, seed: int) -> None:
    groups = prefix_groups(workload)
    names, size = np.unique(groups, return_counts=True)
    wanted = round(ratio * len(names))
    assume(wanted)
    kept = thin(workload, ratio, seed, groups=True)
    whole = {tuple(workload.prompt_tokens[groups == name].tolist()) for name in names}
    left = prefix_groups(kept, below_blocks=_common_blocks(workload))
    assert len(np.unique(left)) == wanted
    assert {tuple(kept.prompt_tokens[left == name].tolist()) for name in np.unique(left)} <= whole
    assert sum(sorted(size)[:wanted]) <= len(kept) <= sum(sorted(size)[-wanted:])


@given(one=workloads(), other=workloads())
def test_a_merge_keeps_all_requests_and_both_structures_apart(one: Workload, other: Workload) -> None:
    both = merge(one, other)
    assert_sound(both)
    assert tokens(both) == tuple(a + b for a, b in zip(tokens(one), tokens(other), strict=True))
    order = np.argsort(np.concatenate([one.arrived_at_s, other.arrived_at_s]), kind="stable")
    for part, own in ((one, order < len(one)), (other, order >= len(one))):
        assert np.array_equal(equalities(both, np.flatnonzero(own)), equalities(part))
    names = np.concatenate([sessions(one), np.where(sessions(other) < 0, -1, sessions(other) + 100)])
    assert same_sessions(sessions(both), names[order])
    assert both.block_ids.max(initial=-1) == one.block_ids.max(initial=-1) + other.block_ids.max(initial=-1) + 1


@given(workload=workloads())
def test_a_workload_merged_with_itself_shares_all_blocks_when_asked(workload: Workload) -> None:
    both = merge(workload, workload, share_blocks=True)
    assert both.block_ids.max(initial=-1) == workload.block_ids.max(initial=-1)
    assert tokens(both) == tuple(2 * count for count in tokens(workload))


@given(workload=workloads(), copies=st.integers(1, 4), share=st.booleans())
def test_every_copy_of_an_extension_is_the_original(workload: Workload, copies: int, share: bool) -> None:
    assume(len(workload) > 1)
    longer, n = extend(workload, copies, share), len(workload)
    assert_sound(longer)
    assert tokens(longer) == tuple(copies * count for count in tokens(workload))
    assert same(slice_rows(longer, 0, n), workload)
    assert same(slice_rows(longer, (copies - 1) * n, n), workload, TINY)
    blocks = workload.block_ids.max(initial=-1) + 1
    assert longer.block_ids.max(initial=-1) + 1 == (blocks if share else copies * blocks)


@given(workload=workloads(), requests=st.integers(1, 12))
def test_the_head_is_the_first_slice(workload: Workload, requests: int) -> None:
    count = min(requests, len(workload))
    first = slice_rows(workload, 0, count)
    assert np.array_equal(sessions(workload.head(count)), sessions(first))


def test_priorities_and_patience_go_with_their_requests() -> None:
    ones, none, starts = np.ones(3, np.int64), np.zeros(0, np.int64), np.zeros(4, np.int64)
    one = Workload(np.array([0.0, 1.0, 2.0]), ones, ones, none, starts, 16)
    other = Workload(np.array([0.5, 1.5]), ones[:2], ones[:2], none, starts[:3], 16)
    one = replace(one, priority=np.array([3, 1, 2]), cancel_after_s=np.array([5.0, np.inf, 7.0]))
    picked = pick(one, np.array([0, 2]))
    assert picked.priority is not None
    assert picked.cancel_after_s is not None
    assert (picked.priority.tolist(), picked.cancel_after_s.tolist()) == ([3, 2], [5.0, 7.0])
    merged = merge(one, other)
    assert merged.priority is not None
    assert merged.cancel_after_s is not None
    order = np.argsort([0.0, 1.0, 2.0, 0.5, 1.5])
    assert merged.priority.tolist() == np.array([3, 1, 2, 0, 0])[order].tolist()
    assert merged.cancel_after_s.tolist() == np.array([5.0, np.inf, 7.0, np.inf, np.inf])[order].tolist()


def test_a_copy_that_asks_the_same_is_another_conversation() -> None:
    workload = made("sessions", "requests=40")
    longer = extend(workload, 3, share_prefixes=True)
    assert sessions(longer).max() + 1 == 3 * (sessions(workload).max() + 1)


@given(workload=workloads(), factor=st.sampled_from([0.125, 0.5, 2.0, 8.0]))
def test_a_rate_scaled_there_and_back_is_the_same(workload: Workload, factor: float) -> None:
    assert same(scale_rate(scale_rate(workload, factor), 1 / factor), workload)


@given(workload=workloads(), gaps=st.lists(st.tuples(st.floats(0.5, 20), st.floats(0.5, 20)), min_size=1, max_size=4))
def test_time_warped_there_and_back_is_the_same(workload: Workload, gaps: list[tuple[float, float]]) -> None:
    points = [(float(a), float(b)) for a, b in np.cumsum(np.array(gaps), axis=0)]
    there = warp(workload, points)
    assert_sound(there)
    assert same(warp(there, [(b, a) for a, b in points]), workload, TINY)


@given(workload=workloads(), factor=st.floats(0.1, 10))
def test_a_warp_along_one_line_is_a_scaled_rate(workload: Workload, factor: float) -> None:
    assert same(warp(workload, [(factor, 1.0)]), scale_rate(workload, factor), TINY)


@given(workload=workloads(), factor=st.floats(0.1, 10), share=st.floats(0, 0.99))
def test_a_shifted_rate_changes_gaps_after_the_shift_only(workload: Workload, factor: float, share: float) -> None:
    span_s = float(workload.arrived_at_s[-1])
    assume(span_s > 0)
    at_s = share * span_s
    shifted = shift_rate(workload, at_s, factor)
    assert_sound(shifted)
    before = workload.arrived_at_s <= at_s
    assert shifted.arrived_at_s[before].tolist() == workload.arrived_at_s[before].tolist()
    gaps, moved = np.diff(workload.arrived_at_s[~before]), np.diff(shifted.arrived_at_s[~before])
    assert np.allclose(moved, gaps / factor)


@given(one=workloads(), other=workloads(), at_s=st.floats(0.001, 70))
def test_a_switch_is_the_beginning_of_one_and_all_of_the_other(one: Workload, other: Workload, at_s: float) -> None:
    both, early = switch(one, other, at_s), slice_time(one, to_s=at_s)
    assert_sound(both)
    assert same(slice_rows(both, 0, len(early)), early)
    assert same(slice_rows(both, len(early)), other, TINY)
    assert both.arrived_at_s[len(early)] == pytest.approx(at_s)


@given(workload=workloads(), at_most=st.integers(1, 130))
def test_cut_prompts_keep_the_blocks_that_are_still_whole(workload: Workload, at_most: int) -> None:
    cut = cut_prompts(workload, at_most)
    assert cut.prompt_tokens.tolist() == np.minimum(workload.prompt_tokens, at_most).tolist()
    assert np.diff(cut.block_offsets).tolist() == (cut.prompt_tokens // 16).tolist()
    assert_sound(cut)


@given(workload=workloads(), block_tokens=st.integers(1, 64))
def test_rescaled_blocks_still_fill_their_prompts(workload: Workload, block_tokens: int) -> None:
    scaled = rescale_blocks(workload, block_tokens)
    assert (np.diff(scaled.block_offsets) <= scaled.prompt_tokens // block_tokens).all()
    assert scaled.block_ids.tolist() == workload.block_ids.tolist()


@given(workload=workloads(), ratio=st.floats(0.01, 5))
def test_scaled_outputs_are_none_only_where_there_were_none(workload: Workload, ratio: float) -> None:
    scaled = scale_outputs(workload, ratio).output_tokens
    assert ((scaled == 0) == (workload.output_tokens == 0)).all()


def test_sessions_are_the_groups_below_the_system_prompt() -> None:
    workload = made("sessions", "requests=1000")
    groups = prefix_groups(workload)
    assert 150 < len(np.unique(groups)) < 400
    half = thin(workload, 0.5, seed=1, groups=True)
    assert len(np.unique(prefix_groups(half))) == round(0.5 * len(np.unique(groups)))
    assert seen_before_ratio(half) == pytest.approx(seen_before_ratio(workload), abs=0.05)
    assert seen_before_ratio(thin(workload, 0.5, seed=1)) < seen_before_ratio(workload)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: slice_rows(w, 100), "first 100 is not usable; expected 0 to 49"),
        (lambda w: slice_rows(w, 40, 20), "requests 20 is not usable; expected 1 to 10"),
        (lambda w: slice_time(w, 5.0, 4.0), "to_s 4.0"),
        (lambda w: slice_time(w, 1e6), "holds no request of 50"),
        (lambda w: thin(w, 0.0, 0), "keep_ratio 0.0"),
        (lambda w: thin(w, 0.001, 0), "a share of 0.001 of 50 requests holds no request"),
        (lambda w: merge(w, rescale_blocks(w, 50)), "prefix blocks of 16 and of 50 tokens"),
        (lambda w: warp(w, []), "points"),
        (lambda w: warp(w, [(1.0, 2.0), (2.0, 1.0)]), "times that rise"),
        (lambda w: scale_rate(w, 0.0), "factor 0.0"),
        (lambda w: shift_rate(w, 1e6, 2.0), "at_s 1000000.0"),
        (lambda w: switch(w, w, 0.0), "at_s 0.0"),
        (lambda w: extend(w, 0), "copies 0"),
        (lambda w: extend(w, 2, period_s=0.1), "period_s 0.1"),
        (lambda w: extend(slice_rows(w, 0, 1), 2), "one request alone has no rate"),
        (lambda w: cut_prompts(w, 0), "at_most_tokens 0"),
    ],
)
def test_what_cannot_be_done_is_named(change: object, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        change(made("sharing09", "requests=50"))  # type: ignore[operator]


def test_blocks_that_mean_different_prefixes_are_not_shared() -> None:
    one = made("sharing71", "requests=50")
    other = slice_rows(one, 20)
    with pytest.raises(DataError, match="equal ids are different prefixes"):
        merge(one, other, share_blocks=True)


def test_a_real_trace_extends_with_its_rate_and_its_sharing(mooncake: Workload) -> None:
    longer = extend(mooncake, 4)
    before, after = facts(mooncake), facts(longer)
    assert after["requests"] == 4 * 12_031
    for name in ("rate_per_s", "prompt_tokens_mean", "output_tokens_mean", "shared_ratio", "seen_before_ratio"):
        assert after[name] == pytest.approx(before[name], rel=1e-3), name
    assert seen_before_ratio(extend(mooncake, 2, share_prefixes=True)) > 0.6


def test_a_real_trace_thins_by_conversation(mooncake: Workload) -> None:
    assert len(np.unique(prefix_groups(mooncake))) == pytest.approx(7373, rel=0.01)
    kept = thin(mooncake, 0.25, seed=0, groups=True)
    assert len(kept) == pytest.approx(0.25 * len(mooncake), rel=0.1)
    assert seen_before_ratio(kept) == pytest.approx(seen_before_ratio(mooncake), abs=0.05)


def test_azure_has_no_prefixes_and_keeps_its_tokens(azure: Workload) -> None:
    assert facts(scale_rate(azure, 2.0))["rate_per_s"] == pytest.approx(2 * facts(azure)["rate_per_s"])
    assert tokens(merge(azure, azure)) == tuple(2 * count for count in tokens(azure))


@settings(max_examples=20)
@given(workload=workloads(), seed=st.integers(0, 3))
def test_changing_a_workload_leaves_the_original_as_it_was(workload: Workload, seed: int) -> None:
    before = workload.arrived_at_s.tobytes(), workload.block_ids.tobytes(), workload.prompt_tokens.tobytes()
    warp(scale_rate(merge(workload, thin(workload, 1.0, seed)), 2.0), [(1.0, 2.0)])
    cut_prompts(workload, 20)
    assert before == (workload.arrived_at_s.tobytes(), workload.block_ids.tobytes(), workload.prompt_tokens.tobytes())
