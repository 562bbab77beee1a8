"""Write the page of the public traces from their catalogue: ``python docs/make_traces.py > docs/traces.md``."""

from __future__ import annotations

from lodestar.data.traces.catalogue import Trace, catalogue

HEAD = """# Public traces

Made from `data/traces/catalogue.toml` by `python docs/make_traces.py > docs/traces.md`.

```
lodestar traces list                            # what there is, under which licence
lodestar traces get azure-2023-conversation     # into the workspace, verified; says how to ingest it
lodestar traces get azure-2023-conversation --from http://mirror/traces/
```

Nothing is shipped with Lodestar: `get` downloads one file from its publisher into `traces/NAME/` of the workspace. A
download that broke, or was killed, goes on where it ended, unless the file has changed meanwhile. A file takes its name
only when its length and SHA-256 are right; one that is wrong is kept beside it as `.bad`, and is never used.

Without a network, download the file elsewhere and put it where the message says, or name a copy: `--from` takes the
file itself, another URL, or a mirror, which is a directory, or a URL that ends in a slash, laid out as `traces/` of a
workspace is. Copies are verified as downloads are.

Where the table has no checksum, the catalogue knows none: the first download is trusted, its SHA-256 is written down
in `FILE.sha256` beside it, and later downloads must match. A revision that is no commit can change under the same URL.
The licence is the publisher's, and so are the terms of use. Where no format is named, none reads the file yet.

| trace | what | provides | format | licence | bytes | revision | SHA-256 |
|---|---|---|---|---|--:|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    return HEAD + "".join(_row(trace) for trace in catalogue().values())


def _row(trace: Trace) -> str:
    size = f"{trace.size_bytes:,}" if trace.size_bytes else "not known"
    sha256 = f"`{trace.sha256}`" if trace.sha256 else "at the first download"
    what = f"{trace.what}; {trace.note}" if trace.note else trace.what
    cells = (
        f"[{trace.name}]({trace.url})", what, ", ".join(trace.provides), trace.format or "–", trace.licence, size,
        f"[{trace.revision[:12]}]({trace.source})", sha256,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    print(page(), end="")
