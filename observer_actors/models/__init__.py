"""The language models that may comment on failures; none is needed."""

from __future__ import annotations

from observer_actors.models.model import Model, ModelFailed
from observer_actors.models.seed import LakehouseModel

__all__ = ["LakehouseModel", "Model", "ModelFailed"]
