"""What every backend offers."""

from __future__ import annotations

from typing import Protocol

from observer_actors.errors import ObserverError

__all__ = ["Model", "ModelFailed"]


class ModelFailed(ObserverError):
    """The model gave no usable answer: not reached, too slow, refused, not in the agreed form, or empty."""

    status = 502
    title = "model failed"
    retryable = True


class Model(Protocol):
    """Something that goes on from a prompt."""

    @property
    def name(self) -> str:
        """What stands beside its words as their author."""

    async def generate(self, prompt: str) -> str:
        """Give the model's words on the prompt: not empty, and of bounded length.

        :raises ModelFailed: there are none, within the backend's time limit.
        """
