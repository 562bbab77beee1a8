"""Directories, tars and URLs; the URLs go through fsspec's own file systems in memory and on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.models.serving import Decider
from lodestar.models.shipping import remote
from lodestar.models.shipping.check import check
from lodestar.models.shipping.opened import open_artifact
from lodestar.models.shipping.place import put_in_place, require_replaceable, scratch_for


@pytest.fixture
def bucket() -> Iterator[str]:
    """A place in memory that is empty before and after."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield "memory://bucket"
    memory.store.clear()


def put(sound: Path, place: str | Path) -> None:
    require_replaceable(place)
    with scratch_for(place) as scratch:
        shutil.copytree(sound, scratch, dirs_exist_ok=True)
        put_in_place(scratch, place)


def places(tmp_path: Path) -> list[str]:
    local = ["directory", "x.tar", "deep/er/x.tar"]
    return [str(tmp_path / name) for name in local] + [f"file://{tmp_path}/remote/{name}" for name in local]


def test_an_artifact_is_the_same_at_every_place_and_replaces_itself(sound: Path, tmp_path: Path, bucket: str) -> None:
    version = check(sound)["version"]
    for place in [*places(tmp_path), f"{bucket}/x.tar", f"{bucket}/folder", f"{bucket}/folder2/"]:
        for _ in range(2):
            put(sound, place)
            report = check(place)
        assert (report["version"], report["place"]) == (version, place)
    assert set(Decider.load(f"{bucket}/x.tar").targets) == set(Decider.load(sound).targets)
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert left == [name for name in fsspec.filesystem("memory").store if "uploading" in name] == []


def test_nothing_is_there_is_said_in_one_line(tmp_path: Path, bucket: str) -> None:
    for place in [*places(tmp_path), f"{bucket}/x.tar", f"{bucket}/folder"]:
        with pytest.raises(ArtifactError, match="is missing; expected an artifact") as missing:
            check(place)
        assert place in str(missing.value)


def test_what_is_no_artifact_is_not_overwritten(sound: Path, tmp_path: Path, bucket: str) -> None:
    memory = fsspec.filesystem("memory")
    for path in ("/bucket/thesis.tar", "/bucket/folder/thesis.tex", "/bucket/thesis"):
        memory.pipe_file(path, b"years of work")
    (tmp_path / "thesis.tar").write_bytes(b"years of work")
    (tmp_path / "folder.tar").mkdir()
    taken = [f"{bucket}/{name}" for name in ("thesis.tar", "folder", "thesis")]
    for place in [*taken, tmp_path / "thesis.tar", tmp_path / "folder.tar"]:
        with pytest.raises(ConfigError, match="Name another"):
            put(sound, place)
    assert {memory.cat_file(path) for path in memory.find("/bucket")} == {b"years of work"}


def test_a_file_that_the_new_artifact_lacks_goes(sound: Path, bucket: str) -> None:
    put(sound, f"{bucket}/folder")
    fsspec.filesystem("memory").pipe_file("/bucket/folder/e2e_ms.txt", b"of an older artifact")
    put(sound, f"{bucket}/folder")
    check(f"{bucket}/folder")


class Failing(MemoryFileSystem):
    """Memory that fails after some bytes, as a network does; the store is its own."""

    protocol = "failing"
    store: dict[str, object] = {}  # noqa: RUF012 - fsspec keeps it in the class
    pseudo_dirs = [""]  # noqa: RUF012
    left = 10**9

    def put_file(self, lpath: str, rpath: str, **options: object) -> None:
        size = Path(lpath).stat().st_size
        Failing.left -= size
        if Failing.left < 0:
            self.pipe_file(rpath, Path(lpath).read_bytes()[: size // 2])
            raise TimeoutError("the connection is gone")
        super().put_file(lpath, rpath, **options)


@pytest.fixture
def failing() -> Iterator[type[Failing]]:
    fsspec.register_implementation("failing", Failing, clobber=True)
    Failing.store.clear()
    Failing.left = 10**9
    yield Failing
    Failing.store.clear()


@pytest.mark.parametrize("place", ["failing://bucket/x.tar", "failing://bucket/folder"])
def test_a_reader_never_loads_half_of_an_upload(
    sound: Path, artifact: Path, place: str, failing: type[Failing]
) -> None:
    put(sound, place)
    before = check(place)["version"]
    for share in (0.1, 0.5, 0.9, 0.999):
        failing.left = int(share * sum(path.stat().st_size for path in artifact.iterdir()))
        with pytest.raises(ConfigError, match="the connection is gone"):
            put(artifact, place)
        if place.endswith(".tar"):
            assert check(place)["version"] == before
        else:
            with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
                check(place)
            with fsspec.open(f"{place}/manifest.json", "wb") as manifest:  # so that the next try may replace it
                manifest.write((sound / "manifest.json").read_bytes())
    assert not [name for name in failing.store if name.endswith(".uploading")]


def test_a_store_that_cuts_a_file_short_is_found_out(
    sound: Path, failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Failing, lpath: str, rpath: str, **_: object) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes()[:-1])

    monkeypatch.setattr(Failing, "put_file", cut)
    with pytest.raises(ArtifactError, match="did not arrive as it was written"):
        put(sound, "failing://bucket/x.tar")
    assert not failing.store


@pytest.mark.parametrize("name", ["folder/sub/x.txt", "folder/.hidden"])
def test_a_folder_with_anything_but_plain_files_is_refused(sound: Path, bucket: str, name: str) -> None:
    put(sound, f"{bucket}/folder")
    fsspec.filesystem("memory").pipe_file(f"/bucket/{name}", b"x")
    with pytest.raises(ArtifactError, match="expected the plain files of an artifact"):
        check(f"{bucket}/folder")


@pytest.mark.parametrize("place", ["memory://bucket/x.tar", "memory://bucket/folder"])
def test_no_more_is_fetched_than_an_artifact_has(
    sound: Path, bucket: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sound, place)
    monkeypatch.setattr(remote, "MAX_BYTES", 10_000)
    with pytest.raises(ArtifactError, match="has more than"), open_artifact(place):
        pass


def test_a_scheme_that_nobody_knows_and_one_without_its_driver_are_one_line() -> None:
    with pytest.raises(ConfigError, match="scheme 's3n' is not known; did you mean 's3'"):
        check("s3n://bucket/x.tar")
    drivers = {"s3": "s3fs", "gs": "gcsfs", "oci": "ocifs", "abfs": "adlfs", "webdav": "webdav4"}
    absent = {scheme: package for scheme, package in drivers.items() if find_spec(package) is None}
    if not absent:
        pytest.skip("every driver is installed here")
    for scheme, package in absent.items():
        with pytest.raises(
            ConfigError, match=f"^{scheme}://b/x.tar: .* needs the package {package}, .*install {package}$"
        ):
            check(f"{scheme}://b/x.tar")
