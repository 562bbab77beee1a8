from __future__ import annotations

from lodestar.reports.beyond_one_step import router_test_grid


def test_a_coin_between_two_routers_marks_where_the_path_levels_off() -> None:
    steps = [{"horizon": k, "value": value, "se": 10.0} for k, value in ((1, -130.0), (64, -76.0), (128, -74.0))]
    test = {"design": "per request", "a": "jsq", "b": "affinity", "value": -76.0, "horizon": 64, "path": steps}
    test["notes"] = ["n"]
    grid = router_test_grid(test)
    assert grid.columns[1].title == "affinity − jsq"
    assert [cell.mark for cell in grid.columns[1].cells] == ["", "best", ""]
    assert "The answer is at horizon 64, where the path levels off" in grid.notes[1]
    assert grid.warnings == ["N."]
    restless = router_test_grid({**test, "horizon": 128, "value": -74.0})
    assert {cell.mark for cell in restless.columns[1].cells} == {""}
    assert restless.notes[1].startswith("There is no answer: the path does not level off")


def test_turns_of_two_routers_mark_the_longest_burn_in_and_print_its_interval() -> None:
    steps = [{"burn_in": k, "value": value, "se": 10.0} for k, value in ((0, -130.0), (64, -76.0), (100, -74.0))]
    test = {"design": "switchback", "a": "jsq", "b": "affinity", "value": -74.0, "burn_in": 100, "path": steps}
    grid = router_test_grid({**test, "ci95": [-96.0, 1.0], "notes": []})
    assert [cell.mark for cell in grid.columns[1].cells] == ["", "", "best"]
    assert "The answer is at burn-in 100, its 95 % interval −96.00 to +1.00;" in grid.notes[1]
