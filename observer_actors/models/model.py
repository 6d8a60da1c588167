"""What every backend offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from observer_actors.errors import ObserverError

CONTEXT_TOKENS: Final = 8_192
"""A question of `consultation.PROMPT_BYTES_MAX`, of letters that take a token a byte, and its answer."""


class ModelFailed(ObserverError):
    """The model gave no usable answer: not reached, too slow, refused, not in the agreed form, or empty.

    ``tokens`` is what it took all the same, 0 when nobody knows.
    """

    status = 502
    title = "model failed"
    retryable = True

    def __init__(self, detail: str, *, tokens: int = 0) -> None:
        super().__init__(detail)
        self.tokens = tokens


class ModelRefused(ModelFailed):
    """The server answered with another status than 2xx.

    ``wait_s`` is how long it asks to be left alone, 0 when it does not say.
    """

    def __init__(self, detail: str, http_status: int, wait_s: float) -> None:
        super().__init__(detail)
        self.http_status = http_status
        self.wait_s = wait_s


class FormRefused(ModelFailed):
    """The server may not know schemas, or names a limit otherwise: the question is to be put once more, in its form."""


class Model(Protocol):
    """Something that goes on from a prompt."""

    @property
    def name(self) -> str:
        """What stands beside its words as their author."""

    async def generate(self, prompt: str) -> str:
        """Give the model's words on the prompt: not empty, and of bounded length.

        :raises ModelFailed: there are none, within the backend's time limit.
        """


class ChatReply(msgspec.Struct, frozen=True):
    """A model's words, and the tokens that question and answer took."""

    text: str
    tokens: int


class ChatModel(Protocol):
    """Something that answers a question in JSON."""

    @property
    def name(self) -> str:
        """What stands beside its words as their author."""

    async def chat(self, system: str, prompt: str, schema: Mapping[str, Any]) -> ChatReply:
        """Give the model's words: not empty, of bounded length, and after the schema as far as the server can.

        :raises ModelFailed: there are none, within the backend's time limit.
        """
