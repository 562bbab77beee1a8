"""The workspace: one directory that holds all that Lodestar keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lodestar.data.errors import ConfigError

__all__ = ["Workspace"]


@dataclass(frozen=True, slots=True)
class Workspace:
    """The paths below one home directory.

    >>> Workspace(Path("w")).database.as_posix()
    'w/lodestar.duckdb'
    """

    home: Path

    @classmethod
    def open(cls, home: Path | None = None) -> Workspace:
        """Make the directory if need be: `home`, else ``LODESTAR_HOME``, else ``./.lodestar``."""
        chosen = home or Path(os.environ.get("LODESTAR_HOME") or ".lodestar")
        try:
            chosen.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--home {chosen}: {error.strerror}; expected a directory that can be written. Name another one"
            ) from error
        return cls(chosen.resolve())

    @property
    def database(self) -> Path:
        """The DuckDB file with the canonical tables."""
        return self.home / "lodestar.duckdb"

    @property
    def tracking_uri(self) -> str:
        """MLflow's store: SQLite in the workspace."""
        return f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where MLflow keeps the files of its runs."""
        return self.home / "mlartifacts"

    @property
    def studies(self) -> Path:
        """Optuna's journal: every study of this workspace."""
        return self.home / "studies.journal"

    @property
    def models(self) -> Path:
        """Trained predictors, one directory a dataset."""
        return self.home / "models"

    @property
    def replays(self) -> Path:
        """Results of replays, one directory each, named by time."""
        return self.home / "replays"
