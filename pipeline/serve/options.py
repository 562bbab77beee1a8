"""What a server is started with."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lodestar.data.errors import ConfigError

__all__ = ["ServeOptions", "read_token"]

FEWEST_TOKEN_CHARACTERS: Final = 16
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of ``lodestar serve``.

    Attributes:
        artifact: directory, ``.tar`` or URL to load; None: begin without a model, and learn.
        host: address to listen on.
        port: 0 takes a free one.
        token: what ``Authorization: Bearer`` must say; None only on loopback.
        decision_log: file that decisions are appended to.
        log_mib: size at which that file is set aside and a new one begun.
        learn: train on what is flushed.
        refit_s: how often to look whether a refit is due.
        shadow: score and log, and leave the choice to the gateway.
        max_body_mib: of one request.
        max_queue: decisions that may wait at a time; what comes on top is answered with the fallback at once.
        deadline_ms: a decision that has waited longer is answered with the fallback.
        watch_s: how often to look for a new version of the artifact; 0: never.
        policy: settings that replace those of the artifact.
        state: directory for the artifacts of refits; None: a temporary one.
        reservation_ms: how long a decision is added to what the gateway counts.
        keep_s: how long a decision waits for its outcome.
        objective: which number llm-d gets, 'mean' or 'quantile'.
        quantile: which quantile that is.
        seed: of the exploration.
    """

    artifact: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    decision_log: Path | None = None
    log_mib: float = 256.0
    learn: bool = False
    refit_s: float = 30.0
    shadow: bool = False
    max_body_mib: float = 64.0
    max_queue: int = 256
    deadline_ms: float = 250.0
    watch_s: float = 0.0
    policy: str | None = None
    state: Path | None = None
    reservation_ms: float = 20.0
    keep_s: float = 600.0
    objective: str = "mean"
    quantile: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.artifact is None and not self.learn:
            raise ConfigError("no artifact is named and --learn is not set; expected one of them. Name an artifact")
        if not is_loopback(self.host) and self.token is None:
            raise ConfigError(
                f"--host {self.host} can be reached from other machines, and there is no token; expected a loopback "
                "address, or --token-file FILE or LODESTAR_TOKEN. Set a token"
            )
        if self.watch_s > 0 and "://" in (self.artifact or ""):
            raise ConfigError(
                f"--watch-s {self.watch_s:g} with {self.artifact}: only an artifact on this machine is watched; "
                "expected its path. Copy it here, or ask for a reload by POST /v1/reload"
            )
        for name, value in (
            ("refit-s", self.refit_s),
            ("max-body-mib", self.max_body_mib),
            ("keep-s", self.keep_s),
            ("log-mib", self.log_mib),
        ):
            if not value > 0:
                raise ConfigError(f"--{name} is {value:g}; expected a number above 0. Correct it")

    @property
    def max_body_bytes(self) -> int:
        """Largest body that is read."""
        return int(self.max_body_mib * MIB)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "router.example")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(file: Path | None) -> str | None:
    """Return the token of a file, else of ``LODESTAR_TOKEN``; None where neither has one.

    Raises:
        ConfigError: the file cannot be read, or the token is short or not plain text.
    """
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {file} cannot be read ({error}); expected a text file") from error
        where = f"--token-file {file}"
    else:
        text, where = os.environ.get("LODESTAR_TOKEN", "").strip(), "LODESTAR_TOKEN"
        if not text:
            return None
    if len(text) < FEWEST_TOKEN_CHARACTERS or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"{where} holds {len(text)} characters; expected at least {FEWEST_TOKEN_CHARACTERS} printable ones without "
            "spaces. Make one with: openssl rand -hex 32"
        )
    return text
