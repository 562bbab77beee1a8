"""Files of what the real estimation libraries say: ``python tests/peers/golden_files.py [obp] [vw] [digits]``.

That makes the named files anew, or all; it installs each library into an environment of its own, in the user's cache
folder. The tests of parity read the files alone. ``tests/peers/test_obp.py`` checks that the libraries still say so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers.environment import peer_python

__all__ = ["Golden", "committed", "made"]

HERE = Path(__file__).parent
#: By name: the extra that pins the library, and the script that its Python runs.
SCRIPTS = {
    "obp": ("peer-obp", "obp_golden.py"),
    "vw": ("peer-vw", "vw_golden.py"),
    "digits": ("peer-obp", "obp_digits.py"),
}
LIMIT_S = 600

Golden = dict[str, np.ndarray]


def committed(name: str) -> Golden:
    """Read a file of the repository."""
    return _read(_file(name))


def made(name: str, *arguments: str) -> Golden:
    """Let the real library make it, or skip the test where the library can't be installed.

    Args:
        name: of the file.
        arguments: further ones of its script.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.npz"
        _make(name, path, *arguments)
        return _read(path)


def _file(name: str) -> Path:
    return HERE / "golden" / f"{name}.npz"


def _read(path: Path) -> Golden:
    with np.load(path) as file:
        return dict(file)


def _make(name: str, path: Path, *arguments: str) -> None:
    extra, script = SCRIPTS[name]
    command = [str(peer_python(extra)), str(HERE / script), str(path), *arguments]
    subprocess.run(command, check=True, timeout=LIMIT_S)


def main() -> None:
    """Make files of the repository anew."""
    for name in sys.argv[1:] or SCRIPTS:
        _make(name, _file(name))
        print(f"{_file(name)}: {_file(name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
