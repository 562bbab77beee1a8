"""The alias ``shipped`` in MLflow's registry: the version of a target's model that went into the newest artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import mlflow

from lodestar.data.workspace import Workspace
from lodestar.models.registry.tracking import quiet, use_store

__all__ = ["SHIPPED", "move_shipped"]

SHIPPED: Final = "shipped"


def move_shipped(workspace: Workspace, about: Mapping[str, Any], artifact: str) -> str | None:
    """Call a registered version shipped, as ``models:/NAME@shipped``, and tag it with the artifact that it is in.

    Args:
        workspace: whose registry.
        about: what the index tells of the model: 'registered_model' and 'registered_version'.
        artifact: its version.

    Returns:
        the version's name, as in 'made-ttft_ms version 3'; None for a model that was never registered.
    """
    if "registered_model" not in about or "registered_version" not in about:
        return None
    model, number = about["registered_model"], str(about["registered_version"])
    with quiet():
        use_store(workspace)
        client = mlflow.MlflowClient()
        client.set_registered_model_alias(model, SHIPPED, number)
        client.set_model_version_tag(model, number, "artifact", artifact)
    return f"{model} version {number}"
