"""The seed's model: `POST {LAKEHOUSE_URL}/ai/generate`, of whose answer the ``text`` counts."""

from __future__ import annotations

from typing import Final

import httpx
import msgspec
import trio

from observer_actors.models.model import ModelFailed
from observer_actors.settings import ModelSettings

__all__ = ["ANSWER_BYTES_MAX", "LakehouseModel"]

ANSWER_BYTES_MAX: Final = 1024 * 1024
"""Many times what 400 tokens take; a server that sends more is not what we think it is."""
_TOKENS_MAX: Final = 400
_TEMPERATURE: Final = 0.2
"""Both are the seed's."""
_PATH: Final = "/ai/generate"
_HTTP_OK: Final = range(200, 300)


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
        """Give the model's words on the prompt, in at most `ANSWER_BYTES_MAX` bytes.

        :raises ModelFailed: no answer within the time limit, which holds for the whole exchange; a status
            that is not 2xx; an answer that is too long, not JSON, or without words in ``text``.
        """
        try:
            with trio.fail_after(self._timeout_seconds):
                answer = await self._ask(prompt)
        except trio.TooSlowError as error:
            raise ModelFailed(f"{self._url}: no answer within {self._timeout_seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelFailed(f"{self._url}: {type(error).__name__}: {error}") from error
        return self._text(answer)

    async def _ask(self, prompt: str) -> bytes:
        """Exchange the request for the body of the answer, read no further than its limit."""
        request = {
            "prompt": prompt,
            "model": self.name,
            "max_tokens": _TOKENS_MAX,
            "temperature": _TEMPERATURE,
        }
        # Uncompressed: what is counted is then what arrives.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        async with self._client.stream(
            "POST",
            self._url,
            content=msgspec.json.encode(request),
            headers=headers,
            timeout=None,  # the caller's limit holds for the whole exchange
        ) as response:
            if response.status_code not in _HTTP_OK:
                raise ModelFailed(f"{self._url}: status {response.status_code}")
            return await self._body(response)

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        with trio.CancelScope() as reading:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    # httpx nests generators that close only when what they wait for ends or raises; leaving the
                    # loop would abandon them.
                    reading.cancel()
        if len(body) > ANSWER_BYTES_MAX:
            raise ModelFailed(f"{self._url}: an answer of more than {ANSWER_BYTES_MAX:,} bytes")
        return bytes(body)

    def _text(self, answer: bytes) -> str:
        try:
            text = msgspec.json.decode(answer, type=_Answer).text
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ModelFailed(f"{self._url}: not an answer: {error}") from error
        if not text.strip():
            raise ModelFailed(f"{self._url}: an answer without words")
        return text
