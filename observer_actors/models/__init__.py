"""The language models that may comment on failures; none is needed."""

from __future__ import annotations

from observer_actors.models.chat import OllamaModel, OpenAIModel
from observer_actors.models.guard import Breaker, Budget, Call
from observer_actors.models.model import ChatModel, ChatReply, FormRefused, Model, ModelFailed, ModelRefused
from observer_actors.models.seed import LakehouseModel

__all__ = [
    "Breaker",
    "Budget",
    "Call",
    "ChatModel",
    "ChatReply",
    "FormRefused",
    "LakehouseModel",
    "Model",
    "ModelFailed",
    "ModelRefused",
    "OllamaModel",
    "OpenAIModel",
]
