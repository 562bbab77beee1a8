"""MLflow's own server on the workspace, for as long as somebody looks at it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lodestar.data.errors import ConfigError
from lodestar.data.workspace import Workspace

__all__ = ["MlflowServer"]

_START_S: Final = 120
_STOP_S: Final = 5


class MlflowServer:
    """Start the server on the loopback address, wait until it answers, and take all its processes down at the end.

    What it says of itself goes to a file in the workspace.
    """

    def __init__(self, workspace: Workspace, port: int) -> None:
        """Refuse a port that somebody else holds; start nothing yet."""
        self.url = f"http://127.0.0.1:{port}"
        self.log: Path = workspace.home / "mlflow-server.log"
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(f"--port {port}: {error.strerror}; expected a free port. Name another one") from error
        arguments = {
            "--backend-store-uri": workspace.tracking_uri,
            "--default-artifact-root": workspace.mlflow_artifacts.as_uri(),
            "--host": "127.0.0.1",
            "--port": str(port),
            "--workers": "1",
        }
        self._command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            *(word for pair in arguments.items() for word in pair),
        ]

    def __enter__(self) -> Self:
        """Start it, in a process group of its own, and wait until it answers."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment, process_group=0)
        try:
            self._wait_until_up()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop it; ctrl-C is how it is meant to end."""
        self._stop()
        return kind is KeyboardInterrupt

    def wait(self) -> None:
        """Wait until it ends by itself, which it should not."""
        code = self._process.wait()
        raise ConfigError(f"MLflow's server ended with exit code {code}; expected it to go on. Its words: {self.log}")

    def _wait_until_up(self) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return
            time.sleep(0.3)
        raise ConfigError(
            f"MLflow's server did not start on {self.url}; expected it within {_START_S} s. See {self.log}"
        )

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
