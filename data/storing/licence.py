"""The licence of a log, where one lies beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["licence_beside"]

NAMES: Final = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
LEVELS: Final = 3  # folders up, as far as a set of traces is deep
HEAD_CHARACTERS: Final = 2000
#: What the first lines of a licence say → its SPDX name.
KNOWN: Final = {
    "Apache License": "Apache-2.0",
    "MIT License": "MIT",
    "Creative Commons Attribution 4.0": "CC-BY-4.0",
    "Attribution 4.0 International": "CC-BY-4.0",
    "CC0 1.0": "CC0-1.0",
    "BSD 3-Clause": "BSD-3-Clause",
}


def licence_beside(path: Path) -> str | None:
    """Return the SPDX name of the licence that lies beside a log or in a folder above it, or its first words."""
    folder = path.resolve().parent
    for level in (folder, *folder.parents)[:LEVELS]:
        for name in NAMES:
            if (level / name).is_file():
                return _named(level / name)
        # A licence above the folder of the project or of the home is that of something else.
        if (level / ".git").exists() or level == Path.home():
            return None
    return None


def _named(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:HEAD_CHARACTERS]
    except OSError:
        return None
    known = next((spdx for words, spdx in KNOWN.items() if words.lower() in " ".join(text.split()).lower()), None)
    return known or next((line.strip()[:80] for line in text.splitlines() if line.strip()), None)
