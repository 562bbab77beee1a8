"""Every format on broken logs: no crash, no hang, and every row is stored or refused."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conftest import traces_folder
from lodestar.data.errors import LodestarError
from lodestar.data.formats import formats
from lodestar.data.formats.mapped import mapped_format
from lodestar.data.ingest import SourceReport, ingest
from lodestar.data.reading import Format
from lodestar.data.reasons import Reason
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from mapped_seeds import MAP_SEEDS, MAPPINGS
from mutations import mutated
from readings import read_all
from seeds import CSV_HEADS, NATIVE, SEEDS, json_lines, real_seeds

MOST_SECONDS: Final = 20.0
NAMES: Final = (*SEEDS, *(f"map {kind}" for kind in MAPPINGS))
#: Formats in which a row is a line → what counts the lines that are none.
OF_LINES: Final = {
    **dict.fromkeys(
        (*CSV_HEADS, "mooncake", "qwen-bailian", "aiperf", "vllm-timeseries", "llm-d", "aibrix-client"), ()
    ),
    **dict.fromkeys(("native", "map csv", "map jsonl"), ()),
    "dynamo": ("events, which are no requests",),
    "lodestar-klog": ("lines without @latency_metrics@",),
    "vllm-log": ("lines that are no statistics", "prefix-cache lines", "starts of an engine's server"),
}
HEADED: Final = (*CSV_HEADS, "map csv")
BLANK: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
PLACES: Final = """SELECT line, 'row ' || line FROM requests WHERE dataset = $1
    UNION ALL SELECT line, record FROM rejects WHERE dataset = $1"""
REFUSED: Final = "SELECT reason, detail, raw FROM rejects WHERE dataset = ?"
#: Formats whose files are read together, the one first that the others go with.
TOGETHER: Final = (
    ("aibrix-client", "aibrix-gateway"),
    ("vllm-timeseries", "vllm-timeseries-series", "vllm-timeseries-meta"),
    ("vllm-timeseries-series", "vllm-timeseries-meta"),
)
HANGING: Final = ("blocks", "decisions", "outcomes", "candidates")

quick = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
# A run that is to find more than the one before it names how many: then every run draws others.
asked = os.environ.get("LODESTAR_FUZZ_EXAMPLES")
thorough = settings(quick, max_examples=int(asked or 25), derandomize=not asked)


@dataclass(frozen=True)
class Desk:
    """Where logs are ingested: one workspace for all, and another dataset for each."""

    workspace: Workspace
    folder: Path
    numbers: Iterator[int]

    def format(self, name: str) -> Format:
        """Return a format by name, or the one that a mapping makes of a kind of file."""
        if name in SEEDS:
            return formats()[name]
        mapping = self.folder / f"{name}.toml"
        mapping.write_text(MAPPINGS[name.removeprefix("map ")])
        return mapped_format(mapping)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("fuzz")
    workspace = Workspace.open(folder / "home")
    # While the store is open here, it need not be opened anew for each log.
    with open_store(workspace):
        yield Desk(workspace, folder, count())


def contents_of(name: str) -> tuple[bytes, ...]:
    if name not in SEEDS:
        return (MAP_SEEDS[name.removeprefix("map ")],)
    return (*SEEDS[name], *real_seeds(traces_folder(), name))


def rows_stored(desk: Desk, dataset: str) -> tuple[int, int, int]:
    """Count the requests, engine samples and rejects of a dataset, and check that nothing hangs on no request."""
    with open_store(desk.workspace) as con:
        requests, samples, rejects = (
            int(con.execute(f"SELECT count(*) FROM {table} WHERE dataset = ?", [dataset]).fetchall()[0][0])
            for table in ("requests", "engine_samples", "rejects")
        )
        for table in HANGING:
            lost = f"SELECT count(*) FROM {table} ANTI JOIN requests USING (request_index)"
            assert con.execute(lost).fetchall() == [(0,)], table
        assert len(load_log(con, dataset)) == requests
        for reason, detail, raw in con.execute(REFUSED, [dataset]).fetchall():
            assert Reason(reason)
            assert detail
            assert raw
    return requests, samples, rejects


def places_stored(desk: Desk, dataset: str) -> list[tuple[int, str | None]]:
    with open_store(desk.workspace) as con:
        return con.execute(PLACES, [dataset]).fetchall()


def lines_with_text(content: bytes) -> list[int]:
    """Number the lines that are not blank, apart from how the readers do it."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [k for k, raw in enumerate(lines, 1) if raw.decode("utf-8", errors="replace").strip(BLANK)]


def others(name: str, report: SourceReport) -> int:
    counted = (re.match(r"(\d+) (.*)", note, re.DOTALL) for note in report.notes)
    return sum(int(found[1]) for found in counted if found and any(said in found[2] for said in OF_LINES[name]))


@contextmanager
def within_bounds() -> Iterator[list[str]]:
    """Let nothing come out but an error of one line, and that soon; give the list that it is put into."""
    start, said = time.monotonic(), list[str]()
    try:
        yield said
    except LodestarError as error:
        said += str(error).splitlines() or [""]
    except pl.exceptions.PanicException as error:
        raise AssertionError("Polars panicked") from error
    assert len(said) <= 1
    assert time.monotonic() - start < MOST_SECONDS


def check_ingest(desk: Desk, name: str, content: bytes) -> None:
    dataset, path = f"d{next(desk.numbers)}", desk.folder / "log"
    path.write_bytes(content)
    with within_bounds() as said:
        (report,) = ingest(desk.workspace, [path], dataset, format=desk.format(name)).sources
    if said:
        return
    requests, samples, rejects = rows_stored(desk, dataset)
    assert (requests + samples, rejects) == (report.rows_stored, report.rows_rejected)
    assert report.rows_read == report.rows_stored + report.rows_rejected > 0
    places = places_stored(desk, dataset)
    assert len(places) == len(set(places))
    if name in OF_LINES and not content.startswith(b"PAR1"):
        expected = lines_with_text(content)
        assert {line for line, _ in places} <= set(expected)
        assert report.rows_read + others(name, report) == len(expected) - (name in HEADED)


def check_reader(desk: Desk, name: str, content: bytes) -> None:
    assert all(isinstance(format.sniff(content), bool) for format in formats().values())
    with within_bounds():
        read_all(desk.format(name), content)  # which asserts that its numbers add up


def test_every_format_has_a_seed_that_it_reads_and_tells_from_all_others(desk: Desk) -> None:
    assert set(SEEDS) == set(formats())
    for name, contents in SEEDS.items():
        for content in contents:
            assert [other for other, format in formats().items() if format.sniff(content)] == [name]
            assert read_all(formats()[name], content).lines > 0 or name == "vllm-timeseries-meta"


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_a_log_is_where_the_report_says(name: str, desk: Desk) -> None:
    for content in contents_of(name):
        check_ingest(desk, name, content)


def test_a_row_that_breaks_two_rules_is_refused_once(desk: Desk) -> None:
    untimed = NATIVE[1] | {"request": NATIVE[1]["request"] | {"arrived_at_s": None}}
    both = untimed | {"candidates": [{"instance": "a", "hit_ratio": 73}]}
    check_ingest(desk, "native", json_lines(NATIVE[0], both))


def test_times_that_run_back_again_and_again_are_refused(desk: Desk) -> None:
    head, rows = SEEDS["vllm-timeseries-series"][0].split(b"\n", 1)
    check_ingest(desk, "vllm-timeseries-series", head + b"\n" + rows * 4)


def test_text_that_is_no_utf8_in_parquet_is_one_line(desk: Desk) -> None:
    check_ingest(desk, "native", SEEDS["native"][1].replace(b"soft", b"so\xfft"))


@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=st.data())
def test_every_row_of_a_broken_log_is_stored_or_refused(name: str, desk: Desk, data: st.DataObject) -> None:
    check_ingest(desk, name, data.draw(mutated(contents_of(name))))


@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=st.data())
def test_a_reader_ends_on_every_broken_log(name: str, desk: Desk, data: st.DataObject) -> None:
    check_reader(desk, name, data.draw(mutated(contents_of(name))))


@pytest.mark.parametrize("names", TOGETHER)
@quick
@given(data=st.data())
def test_every_row_of_broken_logs_that_are_read_together_is_accounted_for(
    names: tuple[str, ...], desk: Desk, data: st.DataObject
) -> None:
    dataset, broken = f"d{next(desk.numbers)}", data.draw(st.sampled_from(names))
    for name in names:
        content = SEEDS[name][0]
        (desk.folder / name).write_bytes(data.draw(mutated((content,))) if name == broken else content)
    with within_bounds() as said:
        report = ingest(desk.workspace, [desk.folder / name for name in names], dataset)
    if said:
        return
    requests, samples, rejects = rows_stored(desk, dataset)
    for source in report.sources:
        assert source.rows_read == source.rows_stored + source.rows_rejected
    assert rejects == report.rows_rejected
    # A row of a gateway's log that is stored is part of the client's row.
    assert requests + samples == report.rows_stored - (
        report.sources[1].rows_stored if report.sources[1].format == "aibrix-gateway" else 0
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@thorough
@given(data=st.data())
def test_no_row_is_lost_in_many_more_broken_logs(name: str, desk: Desk, data: st.DataObject) -> None:
    content = data.draw(mutated(contents_of(name)))
    check_reader(desk, name, content)
    check_ingest(desk, name, content)
