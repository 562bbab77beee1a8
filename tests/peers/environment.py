"""Real routers and libraries to compare with: each in an environment of its own, made once and kept in a cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

__all__ = ["peer_python"]

INSTALL_LIMIT_S = 300
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
#: What pip is told besides, of peers that publish no wheel, or declare no Python that they in truth run on.
SOURCE_ONLY = {
    "obp": ["--no-binary=obp", "--ignore-requires-python"],  # declared below 3.11
    "vw-estimators": ["--no-binary=vw-estimators"],
}


def peer_python(extra: str) -> Path:
    """Return the Python of an environment that holds exactly what an extra pins, or skip the test with the reason.

    The environment is made on the first call and kept in ``lodestar-peers/<peer>-<version>`` of the user's cache
    folder. Processes that ask at the same moment wait for the first. Set ``LODESTAR_PEERS=required`` to fail
    instead of skipping, so that a check which has to run can't be left out unseen.

    Args:
        extra: of ``pyproject.toml``: pinned, complete and the peer first; what they depend on is not installed.
    """
    requirements = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"][extra]
    name, _, version = requirements[0].partition("==")
    folder = _cache_folder() / "lodestar-peers" / f"{name}-{version}"
    try:
        return _prepared(folder, requirements)
    except (OSError, ImportError, subprocess.SubprocessError) as error:
        reason = f"{name} {version} can't be installed here: {_last_line(error)}"
        if os.environ.get("LODESTAR_PEERS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _prepared(folder: Path, requirements: list[str]) -> Path:
    # Not on Windows, where the peers have no wheels either.
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    python, made_of = folder / "bin" / "python", folder / "requirements.txt"
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The list is written last, so an install that was cut short is made anew.
        if not made_of.exists() or made_of.read_text().split() != requirements:
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            how = ["--no-deps", "--only-binary=:all:", *SOURCE_ONLY.get(requirements[0].partition("==")[0], [])]
            _run([str(python), "-m", "pip", "install", "--quiet", *how, *requirements])
            made_of.write_text("\n".join(requirements))
    return python


def _run(command: list[str]) -> None:
    limits = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "20", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, env={**os.environ, **limits}
    )


def _last_line(error: Exception) -> str:
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    lines = [line for line in str(said or error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
