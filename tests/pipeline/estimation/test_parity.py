"""Our estimators beside the real libraries, to 1e-9; what those said is in files, see `peers.golden_files`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lodestar.pipeline.estimation.estimators.dm import dm
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.dr_os import dr_os
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.estimators.mipw import mipw
from lodestar.pipeline.estimation.estimators.mrdr import mrdr
from lodestar.pipeline.estimation.estimators.sg_dr import sg_dr
from lodestar.pipeline.estimation.estimators.sg_ipw import sg_ipw
from lodestar.pipeline.estimation.estimators.sndr import sndr
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.estimators.switch_dr import switch_dr
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.confidence_sequence import confidence_sequence
from lodestar.pipeline.estimation.intervals.cressie_read import cressie_read
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.loggers import balanced, weighted_dr, weighted_ipw
from lodestar.pipeline.estimation.obp import of_obp
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued
from lodestar.pipeline.estimation.slope import slope
from peers.golden_files import Golden, committed

SHARES, FINE = 128, 16  # units of the files

AS_OBP: dict[str, Callable[[OneStepInput], Valued]] = {
    "dm": dm,
    "ipw": ipw,
    "ipw 4": lambda rows: ipw(rows, 4.0, centred=False),
    "snipw": snipw,
    "dr": dr,
    "dr 4": lambda rows: dr(rows, 4.0),
    "sndr": sndr,
    "switch-dr 4": lambda rows: switch_dr(rows, 4.0),
    "dr-os 25": lambda rows: dr_os(rows, 25.0),
    "sg-ipw 0.1": lambda rows: sg_ipw(rows, 0.1, centred=False),
    "sg-dr 0.1": lambda rows: sg_dr(rows, 0.1),
    "mipw": mipw,
}
TUNED: dict[str, Callable[[OneStepInput, float], Valued]] = {
    "ipw": lambda rows, lambda_: ipw(rows, lambda_, centred=False),
    "dr": dr,
    "switch-dr": switch_dr,
    "dr-os": dr_os,
    "sg-ipw": lambda rows, lambda_: sg_ipw(rows, lambda_, centred=False),
    "sg-dr": sg_dr,
}
OF_LOGGERS: dict[str, Callable[[OneStepInput, np.ndarray], Valued]] = {
    "naive ipw": lambda mixed, of_loggers: ipw(mixed),
    "naive dr": lambda mixed, of_loggers: dr(mixed),
    "balanced ipw": lambda mixed, of_loggers: ipw(balanced(mixed, of_loggers)),
    "balanced dr": lambda mixed, of_loggers: dr(balanced(mixed, of_loggers)),
    "weighted ipw": lambda mixed, of_loggers: weighted_ipw(mixed),
    "weighted dr": lambda mixed, of_loggers: weighted_dr(mixed),
}
VW_BOUNDS = Bounds(0.0, 400.0)
VW_LARGEST_WEIGHT = 128.0


def _assert_same(ours: object, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return committed("obp")


@pytest.fixture(scope="module")
def rows(golden: Golden) -> OneStepInput:
    """The log as obp has it, with every action a candidate."""
    logging, action = golden["logging"] / SHARES, golden["chosen"].astype(np.int64)
    feedback = {
        "reward": golden["cost"] / FINE,
        "action": action,
        "pscore": logging[np.arange(len(action)), action],
        "pi_b": logging[:, :, None],
    }
    found = of_obp(
        feedback, golden["policy"][:, :, None] / SHARES, golden["predicted"][:, :, None] / FINE, negate=False
    )
    return replace(found, embedding=np.tile(golden["cell"].astype(np.int64), len(action)))


@pytest.fixture(scope="module")
def ragged(golden: Golden) -> OneStepInput:
    """The same log without the candidates that neither logger nor policy chooses; from one to eight are left."""
    policy, n = golden["policy"] / SHARES, np.arange(len(golden["policy"]))
    action = golden["chosen"].astype(np.int64)
    candidate = policy > 0
    candidate[n, action] = True
    log = LoggedDecisions.of_padded(golden["cost"] / FINE, candidate, action, golden["logging"][n, action] / SHARES)
    return OneStepInput(log, policy[candidate], golden["predicted"][candidate] / FINE)


@pytest.fixture(scope="module")
def mixed(golden: Golden, rows: OneStepInput) -> OneStepInput:
    """The log of three loggers."""
    logger, action = golden["logger"].astype(np.int64), golden["mixed_chosen"].astype(np.int64)
    n = np.arange(len(logger))
    log = LoggedDecisions(
        golden["mixed_cost"] / FINE,
        rows.log.offsets,
        rows.log.offsets[:-1] + action,
        golden["of_loggers"][logger, n] / SHARES,
        logger=logger,
    )
    return OneStepInput(log, rows.target, rows.predicted)


@pytest.mark.parametrize("name", AS_OBP)
def test_value_is_obps(name: str, golden: Golden, rows: OneStepInput) -> None:
    _assert_same(AS_OBP[name](rows).value, golden[f"value {name}"])


@pytest.mark.parametrize("name", sorted(set(AS_OBP) - {"mipw"}))
def test_candidates_that_nobody_chooses_may_be_left_out(name: str, golden: Golden, ragged: OneStepInput) -> None:
    assert set(ragged.log.counts) == set(range(1, 9))
    _assert_same(AS_OBP[name](ragged).value, golden[f"value {name}"])


def test_mrdr_is_obps_with_a_linear_model_of_other_blocks(golden: Golden, rows: OneStepInput) -> None:
    n, actions = golden["policy"].shape
    one_hot = np.tile(np.eye(actions), (n, 1))
    features = np.column_stack([np.repeat(golden["context"] / FINE, actions, axis=0), one_hot])
    value = mrdr(replace(rows, predicted=None, features=features), folds=4).value
    _assert_same(value, golden["value mrdr"])


@pytest.mark.parametrize("name", TUNED)
def test_slope_picks_what_obp_picks(name: str, golden: Golden, rows: OneStepInput) -> None:
    grid = golden[f"grid {name}"].tolist()
    assert grid[0] < golden[f"pick {name}"] < grid[-1], "an end of the grid would be picked by a broken walk, too"
    picked = slope(lambda each: TUNED[name](rows, each), grid).lambda_
    assert picked == golden[f"pick {name}"]
    _assert_same(TUNED[name](rows, picked).value, golden[f"value {name} slope"])


@pytest.mark.parametrize("name", OF_LOGGERS)
def test_value_of_several_loggers_is_obps(name: str, golden: Golden, mixed: OneStepInput) -> None:
    value = OF_LOGGERS[name](mixed, golden["of_loggers"] / SHARES).value
    _assert_same(value, golden[f"value {name}"])


@pytest.fixture(scope="module", params=["moderate", "large"])
def vw(request: pytest.FixtureRequest) -> Golden:
    """What vw-estimators said of one of its two logs, of moderate or of large weights."""
    return {
        key.removeprefix(f"{request.param} "): each for key, each in committed("vw").items() if request.param in key
    }


@pytest.mark.parametrize(("name", "estimator"), [("ips", ipw), ("snips", snipw)])
def test_value_is_that_of_vw(name: str, estimator: Callable[[OneStepInput], Valued], vw: Golden) -> None:
    n = len(vw["cost"])
    policy, logged = vw["policy"] / SHARES, vw["logged"] / SHARES
    log = LoggedDecisions(vw["cost"] / FINE, 2 * np.arange(n + 1), 2 * np.arange(n), logged)
    target = np.column_stack([policy, 1 - policy]).reshape(-1)
    _assert_same(estimator(OneStepInput(log, target)).value, vw[f"value {name}"])


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
@pytest.mark.parametrize(("name", "largest_weight"), [("", np.inf), (" bounded", VW_LARGEST_WEIGHT)])
def test_cressie_read_is_that_of_vw(name: str, largest_weight: float, alpha: float, vw: Golden) -> None:
    cost, weight = vw["cost"] / FINE, vw["policy"] / vw["logged"]
    found = cressie_read(cost, weight, VW_BOUNDS, largest_weight, level=1 - alpha)
    _assert_same(found.value, vw[f"value cressie-read{name}"])
    _assert_same([found.lower, found.upper], vw[f"interval cressie-read{name} {alpha}"])


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
def test_confidence_sequence_is_that_of_vw(alpha: float, vw: Golden) -> None:
    # In neither log does the guess of the mean pass 1, where vw's goes on and loses its guarantee, and ours stops.
    cost, weight = vw["cost"] / FINE, vw["policy"] / vw["logged"]
    found = confidence_sequence(cost, weight, VW_BOUNDS, level=1 - alpha)
    for count in (10, 50, 200, 1000):
        at = [found.lower[count - 1], found.upper[count - 1]]
        # vw solves for its bounds, on a scale of 0 to 1.
        _assert_same(VW_BOUNDS.scaled(np.array(at)), VW_BOUNDS.scaled(vw[f"sequence {count} {alpha}"]))
