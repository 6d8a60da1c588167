"""Models behind a chat API: any OpenAI-compatible server (llama.cpp's, vLLM, LM Studio, OpenAI), and Ollama's own.

The answer is asked for as JSON after a schema. An OpenAI-compatible server that does not know all of it answers 400 or
422; it is asked without the schema's bounds from then on, or, if that is refused too, without a schema, unless that is
refused likewise: then it was the question. One that has taken a form is trusted to know it, until `REFUSED_MAX`
questions in a row are refused: another model may stand behind the same address. One that says that it wants
`max_completion_tokens` gets it from then on; models that do take no temperature but their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, TypeVar

import httpx
import msgspec

from observer_actors.addresses import without_password
from observer_actors.models.exchange import exchange
from observer_actors.models.model import ChatReply, FormRefused, ModelFailed, ModelRefused
from observer_actors.problems import UNREADABLE
from observer_actors.settings import DiagnosisSettings

TEMPERATURE: Final = 0.2
OLD_LIMIT: Final = "max_tokens"
NEW_LIMIT: Final = "max_completion_tokens"
_NO_SCHEMA: Final = frozenset({400, 422})
REFUSED_MAX: Final = 3
"""Questions that are refused one after the other, for a reason that is mostly theirs."""
_BOUNDS: Final = frozenset({"maxLength", "minItems", "maxItems"})
"""What OpenAI's strict mode, or a server that copies it, may not know, though it knows schemas."""
_CHARS_A_TOKEN: Final = 4
"""What is counted against the budget where a server does not count itself, or says what no answer takes."""
_TOKENS_MAX: Final = 10**9
"""Hundreds of times the largest context; a count without a bound ends beyond what metrics and JSON can hold."""

Schema = Mapping[str, Any]
T = TypeVar("T")


class _Form(IntEnum):
    """In what form an answer is asked for: the first that the server takes."""

    BOUNDED = 0
    UNBOUNDED = 1
    FREE = 2


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    total_tokens: object = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _OllamaAnswer(msgspec.Struct):
    message: _Message
    prompt_eval_count: object = None
    eval_count: object = None


class OpenAIModel:
    """``POST {url}/chat/completions``.

    :param api_key: sent as a bearer token unless it is empty.
    """

    def __init__(self, client: httpx.AsyncClient, settings: DiagnosisSettings, *, api_key: str = "") -> None:
        self.name: Final = settings.model
        self._client = client
        self._settings = settings
        self._url = settings.url.rstrip("/") + "/chat/completions"
        self._shown: Final = without_password(self._url)
        self._headers = _headers(api_key)
        self._limit = OLD_LIMIT
        self._form = _Form.BOUNDED
        self._is_sure = False
        """That the server takes the form has been seen."""
        self._refused: set[str] = set()
        """Questions refused since then, in that form: fewer than `REFUSED_MAX`."""

    async def chat(self, system: str, prompt: str, schema: Schema) -> ChatReply:
        """Ask, and give the words of the first choice.

        :raises FormRefused: there are none, as the server may not know the schema, or names the limit otherwise.
        :raises ModelFailed: there are none.
        """
        form, limit = self._form, self._limit  # others may be under way, and change them
        try:
            answer = await self._ask(system, prompt, _in_form(schema, form))
        except ModelRefused as refused:
            if refused.http_status in _NO_SCHEMA and limit is OLD_LIMIT and NEW_LIMIT in str(refused):
                self._limit = NEW_LIMIT
                raise FormRefused(str(refused)) from refused
            if refused.http_status not in _NO_SCHEMA or (form is self._form and self._is_still_sure(prompt)):
                raise
            if form is not _Form.FREE:
                self._form = self._form if self._is_sure else max(self._form, _Form(form + 1))
                raise FormRefused(str(refused)) from refused
            self._form = self._form if self._is_sure else _Form.BOUNDED
            raise
        self._form, self._is_sure = form, True
        self._refused.clear()
        return _read(answer, system + prompt, self._shown)

    def _is_still_sure(self, prompt: str) -> bool:
        """Tell whether the refusal of a question says nothing of its form."""
        self._refused.add(prompt)
        if len(self._refused) >= REFUSED_MAX:
            self._is_sure = False
        if not self._is_sure:
            self._refused.clear()
        return self._is_sure

    async def _ask(self, system: str, prompt: str, schema: Schema | None) -> bytes:
        request: dict[str, Any] = {
            "model": self.name,
            "messages": _messages(system, prompt),
            self._limit: self._settings.answer_tokens_max,
        }
        if self._limit is OLD_LIMIT:
            request["temperature"] = TEMPERATURE
        if schema is not None:
            described = {"name": "diagnosis", "schema": schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": described}
        timeout_s = self._settings.timeout_seconds
        return await exchange(self._client, self._url, request, timeout_s=timeout_s, headers=self._headers)


class OllamaModel:
    """``POST {url}/api/chat``.

    :param api_key: likewise: what stands before a server may ask for it, and Ollama's own cloud does.
    """

    def __init__(self, client: httpx.AsyncClient, settings: DiagnosisSettings, *, api_key: str = "") -> None:
        self.name: Final = settings.model
        self._client = client
        self._settings = settings
        self._url = settings.url.rstrip("/") + "/api/chat"
        self._shown: Final = without_password(self._url)
        self._headers = _headers(api_key)

    async def chat(self, system: str, prompt: str, schema: Schema) -> ChatReply:
        """Ask, and give the words of the message.

        :raises ModelFailed: there are none.
        """
        request = {
            "model": self.name,
            "messages": _messages(system, prompt),
            "stream": False,
            "format": schema,
            "options": {"temperature": TEMPERATURE, "num_predict": self._settings.answer_tokens_max},
        }
        timeout_s = self._settings.timeout_seconds
        body = await exchange(self._client, self._url, request, timeout_s=timeout_s, headers=self._headers)
        answer = _decoded(body, _OllamaAnswer, self._shown)
        counts = (answer.prompt_eval_count, answer.eval_count)
        return _reply(answer.message.content, counts, system + prompt, self._shown)


def _headers(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def _in_form(schema: Schema, form: _Form) -> Schema | None:
    if form is _Form.FREE:
        return None
    return schema if form is _Form.BOUNDED else _without_bounds(schema)


def _without_bounds(part: Any) -> Any:  # noqa: ANN401 - a part of a schema
    if isinstance(part, Mapping):
        return {key: _without_bounds(value) for key, value in part.items() if key not in _BOUNDS}
    return part


def _messages(system: str, prompt: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


def _read(body: bytes, asked: str, url: str) -> ChatReply:
    answer = _decoded(body, _Completion, url)
    counts = () if answer.usage is None else (answer.usage.total_tokens,)
    return _reply(answer.choices[0].message.content if answer.choices else None, counts, asked, url)


def _reply(text: str | None, counts: Sequence[object], asked: str, url: str) -> ChatReply:
    text = text or ""
    tokens = sum(int(count) for count in counts if isinstance(count, int | float))  # some servers say null
    tokens = tokens if 0 < tokens <= _TOKENS_MAX else (len(asked) + len(text)) // _CHARS_A_TOKEN
    if not text.strip():  # a model that thinks may use up all its tokens for that
        raise ModelFailed(f"{url}: an answer without words", tokens=tokens)
    return ChatReply(text, tokens)


def _decoded(body: bytes, kind: type[T], url: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise ModelFailed(f"{url}: not an answer: {error}") from error
