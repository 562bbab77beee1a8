"""The model that MLflow's registry loads: MLflow keeps a copy of this file instead of a pickled object.

It needs this package where it is loaded, and it answers in milliseconds, where the trees alone would give
log(latency / baseline).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.latency import LatencyModel

__all__ = ["FILES", "STEM", "RegisteredModel"]

FILES = "files"  # what MLflow calls the directory that `LatencyModel.save` wrote
STEM = "model"


class RegisteredModel(PythonModel):
    """A `LatencyModel` behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Read the trees and the rest from the artifact."""
        self.model = LatencyModel.load(Path(context.artifacts[FILES]), STEM)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the expected latency in ms as the one column of a frame, named by the target."""
        features = model_input[list(FEATURE_NAMES)].to_numpy(dtype="float64")
        return pd.DataFrame({self.model.target: self.model.predict(features)}, index=model_input.index)


set_model(RegisteredModel())
