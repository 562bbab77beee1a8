"""Files that ingest reads back as the same workload."""

from __future__ import annotations

import dataclasses
import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from lodestar.data.errors import ConfigError, DataError, LodestarError
from lodestar.data.ingest import ingest
from lodestar.data.log import Workload
from lodestar.data.workloads.load import load_workload
from lodestar.data.workloads.transforms import merge, rescale_blocks, slice_rows
from lodestar.data.workloads.write import write_workload
from lodestar.data.workspace import Workspace
from workload_making import made, same, workloads

NATIVE = ("w.jsonl", "w.jsonl.gz", "w.jsonl.zst", "w.parquet")
MOONCAKE = NATIVE[:3]
ULP_S = 1e-9  # milliseconds read as seconds may be off in the last bit


def back(path: Path, workload: Workload, format: str = "native") -> Workload:
    write_workload(path, workload, format)
    return load_workload(Workspace(path.parent), str(path))


def in_milliseconds(workload: Workload) -> Workload:
    return dataclasses.replace(workload, arrived_at_s=np.rint(workload.arrived_at_s * 1e3) / 1e3)


@pytest.mark.parametrize("preset", ["sharing47", "sessions", "agents", "uneven", "sharing05-50-shift"])
@pytest.mark.parametrize("name", NATIVE)
def test_native_gives_back_the_very_workload(tmp_path: Path, name: str, preset: str) -> None:
    workload = made(preset, "requests=200")
    assert same(back(tmp_path / name, workload), workload)


@pytest.mark.parametrize("preset", ["sharing47", "sessions", "agents", "uneven", "sharing05-50-shift"])
@pytest.mark.parametrize("name", MOONCAKE)
def test_mooncake_gives_back_the_workload_in_milliseconds(tmp_path: Path, name: str, preset: str) -> None:
    workload = in_milliseconds(made(preset, "requests=200"))
    without = dataclasses.replace(workload, session=None)
    assert same(back(tmp_path / name, workload, "mooncake"), without, ULP_S)


@settings(max_examples=15, deadline=None)
@given(workload=workloads())
def test_any_workload_comes_back_from_native(workload: Workload) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert same(back(Path(folder) / "w.jsonl", workload), workload)


@pytest.mark.parametrize("format", ["native", "mooncake"])
def test_a_real_trace_comes_back(mooncake: Workload, tmp_path: Path, format: str) -> None:
    assert same(back(tmp_path / "w.jsonl.zst", mooncake, format), mooncake, ULP_S)


def test_requests_without_prefixes_come_back(azure: Workload, tmp_path: Path) -> None:
    assert same(back(tmp_path / "w.parquet", azure), azure)


def test_more_records_than_are_in_memory_at_once_come_back(tmp_path: Path) -> None:
    workload = made(
        "uneven", "requests=120000", "block_tokens=512", "prompt_tokens={distribution='constant',value=600}"
    )
    for name, format in (("w.parquet", "native"), ("w.jsonl.gz", "mooncake")):
        again = back(tmp_path / name, in_milliseconds(workload), format)
        assert same(again, in_milliseconds(workload), ULP_S)


@pytest.mark.parametrize("name", NATIVE)
def test_the_same_workload_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    workload = made("sharing47", "requests=50")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_workload(tmp_path / folder / name, workload)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_mooncake_cannot_hold_is_said(tmp_path: Path) -> None:
    workload = made("sharing47", "requests=200")
    notes = write_workload(tmp_path / "w.jsonl", workload, "mooncake")
    assert len(notes) == 1
    assert "199 arrivals are rounded to whole milliseconds" in notes[0]
    assert write_workload(tmp_path / "n.jsonl", workload) == ()
    notes = write_workload(tmp_path / "w.jsonl", made("sessions", "requests=200"), "mooncake")
    assert notes[1] == "which requests belong to one conversation is left out, which the format does not hold"


def test_blocks_that_are_not_listed_are_written_as_shared_with_nobody(tmp_path: Path) -> None:
    bare = Workload(np.zeros(3), np.full(3, 40), np.ones(3, int), np.array([0, 0]), np.array([0, 1, 2, 2]), 16)
    notes = write_workload(tmp_path / "w.jsonl", bare, "mooncake")
    assert notes == ("4 whole blocks that the workload does not list are written as shared with nobody",)
    again = load_workload(Workspace(tmp_path), str(tmp_path / "w.jsonl"))
    assert np.bincount(again.block_ids).tolist() == [2, 1, 1, 1, 1]


def test_a_block_size_that_mooncake_would_misread_is_refused(tmp_path: Path) -> None:
    workload = made("sharing47", "requests=50")
    with pytest.raises(ConfigError, match="block_tokens 50 is none of 16, 32"):
        write_workload(tmp_path / "w.jsonl", rescale_blocks(workload, 50), "mooncake")
    short = made("uneven", "requests=50", "prompt_tokens={distribution='constant',value=10}")
    with pytest.raises(ConfigError, match="block_tokens 16 would be read as 512"):
        write_workload(tmp_path / "w.jsonl", short, "mooncake")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format", "said"),
    [
        ("w.csv", "native", "suffix is not known for native"),
        ("w.parquet", "mooncake", "suffix is not known for mooncake"),
        ("w.jsonl", "moncake", "did you mean 'mooncake'"),
        ("no/w.jsonl", "native", "is no directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, name: str, format: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        write_workload(tmp_path / name, made("uneven", "requests=5"), format)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_nowhere_is_named(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    with pytest.raises(DataError, match="no such file and no dataset"):
        load_workload(workspace, str(tmp_path / "no.jsonl"))
    with pytest.raises(LodestarError, match="dataset or file 'nothing' is not known"):
        load_workload(workspace, "nothing")


def test_rows_that_a_source_lost_are_said(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    write_workload(path, made("uneven", "requests=5"))
    path.write_text(path.read_text() + "{cut\n")
    assert load_workload(Workspace(tmp_path), str(path)).inferred["rejected"].startswith("1 rows of")


def test_parts_of_one_trace_merge_back_with_their_own_ids(traces: Path, mooncake: Workload, tmp_path: Path) -> None:
    lines = gzip.decompress((traces / "mooncake/conversation_trace.jsonl.gz").read_bytes()).splitlines(keepends=True)
    halves = []
    for k in range(2):
        part = tmp_path / f"part{k}.jsonl"
        part.write_bytes(b"".join(lines[k:2000:2]))
        halves.append(load_workload(Workspace(tmp_path), str(part), own_ids=True))
    whole = slice_rows(mooncake, 0, 2000)
    both = merge(halves[0], halves[1], share_blocks=True)
    assert len(np.unique(both.block_ids)) == len(np.unique(whole.block_ids))
    assert sorted(np.bincount(both.block_ids)) == sorted(np.bincount(whole.block_ids))


def test_a_dataset_goes_before_a_file(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    workload = made("uneven", "requests=7")
    write_workload(tmp_path / "w.jsonl", workload)
    ingest(workspace, [tmp_path / "w.jsonl"], "mine")
    assert same(load_workload(workspace, "mine"), workload)
