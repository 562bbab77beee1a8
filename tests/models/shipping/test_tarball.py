from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar.data.errors import ArtifactError
from lodestar.models.shipping import tarball
from lodestar.models.shipping.check import check, load_artifact
from lodestar.models.shipping.opened import open_artifact
from lodestar.models.shipping.tarball import pack, unpack


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry, content


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_a_tar_holds_the_same_artifact_and_the_same_bytes_whenever_it_is_made(sound: Path, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        pack(sound, tmp_path / name)
        for path in sound.iterdir():
            path.touch()
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with open_artifact(tmp_path / "a.tar") as directory:
        assert files_of(directory) == files_of(sound)
    assert not directory.exists()
    assert check(tmp_path / "a.tar")["version"] == check(sound)["version"]


def test_a_tar_that_another_tool_made_of_the_directory_is_read(sound: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(sound, ".")  # as tar -C artifact -cf x.tar . does
    assert set(load_artifact(tmp_path / "x.tar")) == set(load_artifact(sound))


HOSTILE = {
    "a way out": (member("../x"), "'../x' is in a folder"),
    "a way out behind a dot": (member("./../x"), "in a folder"),
    "an absolute path": (member("/etc/x"), "in a folder"),
    "a folder": (member("a/b"), "in a folder"),
    "another system's folder": (member("a\\b"), "in a folder"),
    "hidden": (member(".x"), "hidden"),
    "a soft link": (member("x", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link to '/etc/passwd'"),
    "a hard link": (member("x", b"", type=tarfile.LNKTYPE, linkname="manifest.json"), "a link to"),
    "a device": (member("x", b"", type=tarfile.CHRTYPE), "no plain file"),
    "a pipe": (member("x", b"", type=tarfile.FIFOTYPE), "no plain file"),
    "a directory": (member("x", b"", type=tarfile.DIRTYPE), "no plain file"),
}


@pytest.mark.parametrize(("hostile", "said"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_plain_file_is_refused_before_anything_is_written(
    hostile: tuple[tarfile.TarInfo, bytes], said: str, tmp_path: Path
) -> None:
    (tmp_path / "into").mkdir()
    tar_of(tmp_path / "x.tar", member("fine"), hostile)
    with pytest.raises(ArtifactError, match="expected the plain files of an artifact") as refused:
        unpack(tmp_path / "x.tar", tmp_path / "into")
    assert said in str(refused.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["into", "x.tar"]


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    tar_of(tmp_path / "x.tar", member("a"), member("./a"))
    with pytest.raises(ArtifactError, match=r"'\./a' is there twice"):
        unpack(tmp_path / "x.tar", tmp_path)


@pytest.mark.parametrize(("limit", "value"), [("MAX_BYTES", 1999), ("MAX_FILES", 1)])
def test_more_than_an_artifact_has_is_refused(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarball, limit, value)
    tar_of(tmp_path / "x.tar", member("a", b"0" * 1000), member("b", b"0" * 1000))
    with pytest.raises(ArtifactError, match="'b' is more than"):
        unpack(tmp_path / "x.tar", tmp_path)


def test_a_size_that_a_header_claims_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    entry, _ = member("a")
    entry.size = 1 << 40
    (tmp_path / "x.tar").write_bytes(entry.tobuf() + b"0" * 1024)
    with pytest.raises(ArtifactError):
        unpack(tmp_path / "x.tar", tmp_path / "into")
    assert not any((tmp_path / "into").iterdir())


def test_a_compressed_tar_is_refused_as_one(sound: Path, tmp_path: Path) -> None:
    tar_of(tmp_path / "x.tar", member("a"), mode="w:gz")
    with pytest.raises(ArtifactError, match="not compressed"):
        check(tmp_path / "x.tar")


def test_errors_name_the_tar_and_not_where_it_was_unpacked(artifact: Path, tmp_path: Path) -> None:
    (artifact / "ttft_ms.txt").write_text("tree")
    pack(artifact, tmp_path / "x.tar")
    with pytest.raises(ArtifactError, match=r"^\S+/x\.tar/ttft_ms\.txt was changed"):
        check(tmp_path / "x.tar")


@given(where=st.floats(0.0, 1.0, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=60)
def test_a_damaged_tar_is_refused_or_gives_the_very_same_files(
    sound: Path, packed: Callable[[bytes], Path], where: float, value: int, cut: bool
) -> None:
    content = bytearray(packed_bytes(sound))
    place = int(where * len(content))
    if cut:
        del content[place:]
    else:
        content[place] = value
    try:
        models = load_artifact(packed(bytes(content)))
    except ArtifactError:
        return
    assert list(models) == list(load_artifact(sound))  # padding, or an owner's name: nothing that is read


def packed_bytes(directory: Path) -> bytes:
    path = directory.parent / "whole.tar"
    if not path.exists():
        pack(directory, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    path = tmp_path_factory.mktemp("damaged") / "x.tar"

    def write(content: bytes) -> Path:
        path.write_bytes(content)
        return path

    return write
