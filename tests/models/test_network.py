"""The published network: gradients by finite differences, quirks, seeds, and the replay's choice."""

from __future__ import annotations

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.network.adam import Adam
from lodestar.models.network.network import NETWORK_INPUTS, NetworkSettings, PublishedNetwork, network_inputs
from lodestar.models.network.replay_buffer import TrainingBuffers, k_center

QUICK = NetworkSettings(width=8, epochs=2)


def made(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.uniform(0.0, 5.0, (n, len(FEATURE_NAMES)))
    return features, 300.0 + 400.0 * features[:, FEATURE_NAMES.index("waiting_requests")]


def test_it_learns_a_law_that_it_sees_often_enough() -> None:
    features, ttft_ms = made(800)
    predicted = PublishedNetwork(0, NetworkSettings(width=32, batch=8)).fit(features, ttft_ms).predict(features)
    assert np.abs(predicted - ttft_ms).mean() < 0.25 * np.abs(ttft_ms - ttft_ms.mean()).mean()


def test_its_gradients_are_those_of_finite_differences() -> None:
    network = PublishedNetwork(0, NetworkSettings(width=8, dropout=0.0, epochs=1)).fit(*made(64))
    rng = np.random.default_rng(1)
    x, reward = rng.normal(size=(32, len(NETWORK_INPUTS))), rng.normal(size=32)
    network._layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in network._layers]
    gradients = network._gradients(x, reward, rng)
    arrays = [array for layer in network._layers for array in layer]
    for array, gradient in zip(arrays, gradients, strict=True):
        place, step = tuple(size // 2 for size in array.shape), 1e-6
        loss = []
        for shift in (step, -2 * step):
            array[place] += shift
            loss.append(((network._forward(x, None)[1] - reward) ** 2).mean())
        array[place] += step
        assert gradient[place] == pytest.approx((loss[0] - loss[1]) / (2 * step), rel=1e-4, abs=1e-6)


def test_dropout_flows_back_through_what_was_kept() -> None:
    network = PublishedNetwork(0, NetworkSettings(width=8, dropout=0.5, epochs=1)).fit(*made(64))
    x, reward = np.random.default_rng(1).normal(size=(16, len(NETWORK_INPUTS))), np.zeros(16)
    network._layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in network._layers]
    analytic, step = network._gradients(x, reward, np.random.default_rng(7))[0], 1e-6
    loss = []
    for shift in (step, -2 * step):
        network._layers[0][0][3, 2] += shift
        loss.append((network._forward(x, np.random.default_rng(7))[1] ** 2).mean())
    assert analytic[3, 2] == pytest.approx((loss[0] - loss[1]) / (2 * step), rel=1e-4, abs=1e-6)


def test_a_seed_fixes_every_prediction_and_another_changes_them() -> None:
    features, ttft_ms = made()
    first, again, other = (PublishedNetwork(seed, QUICK).fit(features, ttft_ms).predict(features) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_inference_is_noisy_only_with_the_quirk_of_the_release() -> None:
    features, ttft_ms = made()
    quiet = PublishedNetwork(0, QUICK).fit(features, ttft_ms)
    noisy = PublishedNetwork(0, NetworkSettings(width=8, epochs=2, dropout_at_inference=True)).fit(features, ttft_ms)
    assert np.array_equal(quiet.predict(features), quiet.predict(features))
    assert not np.array_equal(noisy.predict(features), noisy.predict(features))


def test_the_skewed_network_does_not_see_what_is_in_flight() -> None:
    features, ttft_ms = made()
    busier = features.copy()
    busier[:, FEATURE_NAMES.index("inflight_prefill_requests")] += 9.0
    for skewed in (False, True):
        settings = NetworkSettings(width=8, epochs=2, no_in_flight_at_inference=skewed)
        network = PublishedNetwork(0, settings).fit(features, ttft_ms)
        assert np.array_equal(network.predict(features), network.predict(busier)) == skewed


def test_slow_requests_are_dropped_only_if_asked() -> None:
    features, ttft_ms = made()
    ttft_ms[:100] = 60_000.0
    cut = PublishedNetwork(0, NetworkSettings(width=8, longest_ms=15_000.0)).fit(features, ttft_ms)
    alone = PublishedNetwork(0, NetworkSettings(width=8)).fit(features[100:], ttft_ms[100:])
    assert np.array_equal(cut.predict(features), alone.predict(features))


def test_it_refuses_to_learn_from_nothing_and_to_predict_untrained() -> None:
    features, ttft_ms = made()
    with pytest.raises(DataError, match=r"200 rows, none of at most 1\.0 ms"):
        PublishedNetwork(0, NetworkSettings(longest_ms=1.0)).fit(features, ttft_ms)
    with pytest.raises(DataError, match="not trained"):
        PublishedNetwork().predict(features)


def test_a_constant_input_is_no_division_by_zero() -> None:
    features, ttft_ms = made()
    features[:, FEATURE_NAMES.index("hit_ratio")] = 0.5
    features[:, FEATURE_NAMES.index("kv_usage_ratio")] = np.nan
    assert np.isfinite(PublishedNetwork(0, QUICK).fit(features, ttft_ms).predict(features)).all()


def test_gradients_longer_than_the_limit_are_shortened_before_the_decay() -> None:
    long, short = (np.zeros(2, dtype=np.float32) for _ in range(2))
    for array, gradient in ((long, [300.0, 400.0]), (short, [0.6, 0.8])):
        adam = Adam([array], clip_norm=1.0)
        for pull in (gradient, [0.0, 1.0]):
            adam.step([np.array(pull, dtype=np.float32)], 0.1)
    assert long == pytest.approx(short)


def test_the_published_inputs_come_in_the_published_order() -> None:
    features = np.arange(len(FEATURE_NAMES), dtype=np.float64)[None]
    assert [FEATURE_NAMES[int(column)] for column in network_inputs(features)[0]] == list(NETWORK_INPUTS)


def test_each_center_is_the_farthest_from_those_before() -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 5))
    chosen, unit = k_center(vectors, 12), vectors / np.linalg.norm(vectors, axis=1)[:, None]
    assert chosen[0] == np.linalg.norm(vectors, axis=1).argmax()
    for place in range(1, 12):
        nearest = (1.0 - unit @ unit[chosen[:place]].T).min(axis=1)
        assert nearest[chosen[place]] == pytest.approx(nearest.max())
    assert len(set(chosen.tolist())) == 12


def test_equal_rows_are_not_chosen_twice() -> None:
    assert sorted(k_center(np.ones((5, 3)), 4).tolist()) != sorted([0, 0, 0, 0])
    assert len(set(k_center(np.ones((5, 3)), 9).tolist())) == 5


def test_no_row_is_lost_before_the_replay_is_full_and_none_is_held_twice() -> None:
    buffers, seen_ms = TrainingBuffers.empty(len(FEATURE_NAMES), capacity=50), np.empty(0)
    network = None
    for round_ in range(6):
        features, _ = made(30, round_)
        new_ms = 1000.0 + 30.0 * round_ + np.arange(30.0)
        rows, rows_ms = buffers.training_rows(features, new_ms)
        assert len(set(rows_ms.tolist())) == len(rows_ms) == len(rows)
        seen_ms = np.append(seen_ms, new_ms)
        if len(seen_ms) <= 100:
            assert set(rows_ms.tolist()) == set(seen_ms.tolist())
        buffers = buffers.add(features, new_ms, network, seed=0)
        network = PublishedNetwork(0, QUICK).fit(rows, rows_ms)
    assert np.array_equal(buffers.newest_ms, seen_ms[-50:])
    assert len(buffers.replay_ms) == 50
