"""The seed's model: `POST {LAKEHOUSE_URL}/ai/generate`, of whose answer the ``text`` counts."""

from __future__ import annotations

from typing import Final

import httpx
import msgspec

from observer_actors.addresses import without_password
from observer_actors.models.exchange import exchange
from observer_actors.models.model import ModelFailed
from observer_actors.settings import ModelSettings

_TOKENS_MAX: Final = 400
_TEMPERATURE: Final = 0.2
"""Both are the seed's."""
_PATH: Final = "/ai/generate"


class _Answer(msgspec.Struct):
    """What is read of an answer; other keys are passed over."""

    text: str


class LakehouseModel:
    """A model behind the seed's endpoint.

    :param client: made and closed by the caller: making one loads certificates, which takes tens of
      milliseconds.
    """

    def __init__(self, client: httpx.AsyncClient, settings: ModelSettings) -> None:
        self._client = client
        self._url = settings.lakehouse_url.rstrip("/") + _PATH
        self._timeout_seconds = settings.timeout_seconds
        self.name: Final = settings.name

    async def generate(self, prompt: str) -> str:
        """Give the model's words on the prompt, in at most `exchange.ANSWER_BYTES_MAX` bytes.

        :raises ModelFailed: no answer within the time limit, which holds for the whole exchange; a status
            that is not 2xx; an answer that is too long, not JSON, or without words in ``text``.
        """
        request = {
            "prompt": prompt,
            "model": self.name,
            "max_tokens": _TOKENS_MAX,
            "temperature": _TEMPERATURE,
        }
        answer = await exchange(self._client, self._url, request, _Answer, timeout_s=self._timeout_seconds)
        if not answer.text.strip():
            raise ModelFailed(f"{without_password(self._url)}: an answer without words")
        return answer.text
