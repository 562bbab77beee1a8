"""How an instance is named where its log does not: by its file, and by the number of its engine."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["engine_named", "file_named", "folder_named"]

ENDINGS: Final = re.compile(r"(\.(gz|zst|bz2|log|txt|jsonl?|csv|prom|metrics))+$")


def file_named(name: str) -> str:
    """Name an instance by its file, without folder and endings.

    >>> file_named("engine/64d7fc4d65-4jvnd.log.gz"), file_named("logs.zip!pods/a.log")
    ('64d7fc4d65-4jvnd', 'a')
    """
    base = name.rsplit("!", 1)[-1].rsplit("/", 1)[-1]
    return ENDINGS.sub("", base) or base


def engine_named(name: str, engine: str | None) -> str:
    """Tell the engines of one server apart: the first, number 0, has the server's name.

    >>> engine_named("pod-a", "000"), engine_named("pod-a", "1"), engine_named("pod-a", None)
    ('pod-a', 'pod-a/1', 'pod-a')
    """
    number = "" if engine is None else engine.lstrip("0")
    return f"{name}/{number}" if number else name


def folder_named(name: str) -> str:
    """Name an instance by the folder of its files, where a run of one engine has a folder of its own.

    >>> folder_named("runs/a100-llama/requests.jsonl"), folder_named("runs.zip!a/requests.jsonl"), folder_named("x.csv")
    ('a100-llama', 'a', 'engine')
    """
    folder = name.rsplit("!", 1)[-1].rpartition("/")[0]
    return folder.rsplit("/", 1)[-1] or "engine"
