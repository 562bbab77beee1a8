"""The page in the documentation is what the numbers beside it say."""

from __future__ import annotations

import math

import pytest

from house import ROOT
from lodestar.pipeline.headline.document import read_document
from lodestar.pipeline.headline.plan import plan
from lodestar.reports.headline_page import page
from lodestar.reports.headline_picture import picture

DOCS = ROOT / "docs"


def test_the_page_and_the_picture_are_made_of_the_numbers_beside_them() -> None:
    document = read_document(DOCS)
    assert page(document) == (DOCS / "headline.md").read_text()
    assert picture(document) == (DOCS / "headline.svg").read_text()


def test_the_numbers_are_of_all_cells_and_five_seeds_and_the_claims_follow_from_the_cells() -> None:
    document = read_document(DOCS)
    own = [row for row in document["cells"] if row["policy"] == "lodestar-online"]
    cells = {(row["workload"], row["fleet"], row["load"]) for row in own}
    assert cells == {(spec.workload, spec.fleet, spec.load) for spec in plan(conversation=True)}
    assert {row["seeds"] for row in own} == {5}
    for statistic in ("mean", "p99"):
        claim = next(
            row
            for row in document["summary"]
            if (row["policy"], row["scope"], row["statistic"]) == ("lodestar-online", "all cells", statistic)
        )
        logs = [math.log(row[f"whole_{statistic}_ratio"]) for row in own]
        assert claim["whole_ratio"] == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-3)
        assert f"{claim['whole_ratio']:.2f} (" in page(document)
