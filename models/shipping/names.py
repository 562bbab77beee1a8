"""How the models of an artifact are named: a target, or a target on one kind of instance."""

from __future__ import annotations

from urllib.parse import quote

from lodestar.data.errors import ArtifactError
from lodestar.models.latency import TARGETS

__all__ = ["file_stem", "kind_of", "model_key", "target_of"]


def model_key(target: str, kind: str = "") -> str:
    """Name the model of a target for all instances, or for those of one kind.

    >>> model_key("ttft_ms"), model_key("ttft_ms", "V100")
    ('ttft_ms', 'ttft_ms@V100')
    """
    return f"{target}@{kind}" if kind else target


def target_of(key: str) -> str:
    """Return the target that a model of this name predicts.

    Raises:
        ArtifactError: there is no such target.

    >>> target_of("ttft_ms@V100")
    'ttft_ms'
    """
    target = key.partition("@")[0]
    if target not in TARGETS:
        raise ArtifactError(
            f"model {key!r} is of no target; expected TARGET or TARGET@KIND with one of {', '.join(TARGETS)}. "
            "Ship it again with this version of lodestar"
        )
    return target


def kind_of(key: str) -> str:
    """Return the kind of instance that a model is for; empty for all.

    >>> kind_of("ttft_ms@V100"), kind_of("ttft_ms")
    ('V100', '')
    """
    return key.partition("@")[2]


def file_stem(key: str) -> str:
    """Return how the names of a model's files begin; what a file's name may not hold is written as ``%XX``.

    A full stop is, too: it ends the stem.

    >>> file_stem("ttft_ms@V100"), file_stem("ttft_ms@A100/40.5GB")
    ('ttft_ms@V100', 'ttft_ms@A100%2F40%2E5GB')
    """
    kind = quote(kind_of(key), safe="").replace(".", "%2E")
    return model_key(target_of(key), kind)
