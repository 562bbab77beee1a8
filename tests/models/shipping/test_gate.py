"""What an artifact says of the promotion gate, and who is refused: on the index alone, nothing is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lodestar.data.errors import ConfigError
from lodestar.models.registry.promotion import Check, Verdict
from lodestar.models.registry.version_index import Index, added, crowned, rolled_back
from lodestar.models.shipping.gate import gate_of, gate_text, passed_all, require_passed

PASSED = Verdict(True, "better than all", 90, (Check("constant", True, "better"),), {"challenger": 10.0})
FAILED = Verdict(False, "worse", 90, (Check("constant", False, "worse"), Check("coverage", False, "off")), None)


def index_of(why: str = "promoted by the gate", **verdicts: Verdict | None) -> Index:
    """One version of all targets, in use."""
    about = {target: {"verdict": verdict.to_dict() if verdict else None} for target, verdict in verdicts.items()}
    index = added(Index(), {"version": "abc", "targets": about})
    return crowned(index, dict.fromkeys(verdicts, "abc"), why, "2026-01-01")


def test_what_the_gate_passed_is_shipped_with_its_numbers() -> None:
    gate = gate_of(index_of(ttft_ms=PASSED, tpot_ms=PASSED))
    found = gate["ttft_ms"]
    assert (found["passed"], found["said"], found["version"]) == (True, "better than all", "abc")
    assert (found["in_use"], found["since"], found["rows"]) == ("promoted by the gate", "2026-01-01", 90)
    assert (found["checks"][0]["name"], found["mae_ms"]) == ("constant", {"challenger": 10.0})
    require_passed("made", gate)
    assert passed_all(gate)


def test_what_the_gate_refused_is_refused_with_the_checks_that_it_failed() -> None:
    gate = gate_of(index_of("promoted by hand", ttft_ms=PASSED, tpot_ms=FAILED))
    with pytest.raises(ConfigError) as refused:
        require_passed("made", gate)
    assert str(refused.value) == (
        "the tpot_ms model abc of 'made' is promoted by hand and did not pass the promotion gate: it failed at "
        "constant, coverage; expected one that passed. See lodestar models show made abc; to ship it all the same, "
        "add --ungated"
    )
    assert not passed_all(gate)
    assert gate_text(gate) == "ttft_ms passed; tpot_ms did not pass: it failed at constant, coverage"


def test_what_was_never_judged_is_refused_too() -> None:
    for verdict in (None, Verdict(False, "not judged: only 12 requests are held out", 12)):
        with pytest.raises(ConfigError, match=r"gate: (the gate was not run|not judged: only 12 requests)"):
            require_passed("made", gate_of(index_of("promoted by hand", ttft_ms=verdict)))


def test_a_model_that_passed_stays_so_by_whatever_way_it_is_in_use() -> None:
    index = index_of(ttft_ms=PASSED)
    index = added(index, {"version": "def", "targets": {"ttft_ms": {"verdict": FAILED.to_dict()}}})
    index = crowned(index, {"ttft_ms": "def"}, "promoted by hand", "2026-01-02")
    assert gate_of(index)["ttft_ms"]["passed"] is False
    back = gate_of(rolled_back(index, None, "2026-01-03"))["ttft_ms"]
    assert (back["version"], back["passed"], back["in_use"], back["since"]) == (
        "abc",
        True,
        "rolled back",
        "2026-01-03",
    )
    again = gate_of(crowned(replace(index), {"ttft_ms": "abc"}, "promoted by hand", "2026-01-04"))["ttft_ms"]
    assert (again["passed"], again["in_use"]) == (True, "promoted by hand")
