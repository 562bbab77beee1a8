"""Write the list of log formats from their registry: ``python docs/make_formats.py > docs/formats.md``."""

from __future__ import annotations

from lodestar.data.formats import formats

HEAD = """# Log formats

Made from the registry by `python docs/make_formats.py > docs/formats.md`; `lodestar formats` lists the same. A file's
format is told by its content, in this order. *Tested on* says whether the tests read logs that a real system wrote, or
records built by hand from the documented schema, where no log was to be had.

Any other CSV, JSON Lines or Parquet file is read with a [mapping file](mapping.md).

| format | what | provides | read together with | tested on |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    rows = (
        f"| `{known.name}` | {known.description} | {', '.join(known.provides)} | "
        f"{', '.join(f'`{name}`' for name in known.companions) or '–'} | {known.sample} |\n"
        for known in formats().values()
    )
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(page(), end="")
