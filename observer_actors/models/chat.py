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
from typing import Any, ClassVar, Final, TypeVar

import httpx
import msgspec

from observer_actors.addresses import without_password
from observer_actors.models.exchange import exchange
from observer_actors.models.model import CONTEXT_TOKENS, ChatReply, FormRefused, ModelFailed, ModelRefused
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


class _Server:
    """What both have in common.

    :param api_key: sent as a bearer token unless it is empty: Ollama's own cloud wants one, too.
    """

    _path: ClassVar[str]

    def __init__(self, client: httpx.AsyncClient, settings: DiagnosisSettings, *, api_key: str = "") -> None:
        self.name: Final = settings.model
        self._client = client
        self._settings = settings
        self._url = settings.url.rstrip("/") + self._path
        self._api_key = api_key

    async def _post(self, request: Mapping[str, Any], kind: type[T]) -> T:
        timeout_s = self._settings.timeout_seconds
        return await exchange(self._client, self._url, request, kind, timeout_s=timeout_s, api_key=self._api_key)

    def _reply(self, text: str | None, counts: Sequence[object], asked: str) -> ChatReply:
        text = text or ""
        tokens = sum(int(count) for count in counts if isinstance(count, int | float))  # some servers say null
        tokens = tokens if 0 < tokens <= _TOKENS_MAX else (len(asked) + len(text)) // _CHARS_A_TOKEN
        if not text.strip():
            most = f"diagnosis.answer_tokens_max, {self._settings.answer_tokens_max}"
            detail = f"an answer without words; a model that thinks first may have used up {most}, for that"
            raise ModelFailed(f"{without_password(self._url)}: {detail}", tokens=tokens)
        return ChatReply(text, tokens)


class OpenAIModel(_Server):
    """``POST {url}/chat/completions``."""

    _path = "/chat/completions"

    def __init__(self, client: httpx.AsyncClient, settings: DiagnosisSettings, *, api_key: str = "") -> None:
        super().__init__(client, settings, api_key=api_key)
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
        counts = () if answer.usage is None else (answer.usage.total_tokens,)
        return self._reply(answer.choices[0].message.content if answer.choices else None, counts, system + prompt)

    def _is_still_sure(self, prompt: str) -> bool:
        """Tell whether the refusal of a question says nothing of its form."""
        self._refused.add(prompt)
        if len(self._refused) >= REFUSED_MAX:
            self._is_sure = False
        if not self._is_sure:
            self._refused.clear()
        return self._is_sure

    async def _ask(self, system: str, prompt: str, schema: Schema | None) -> _Completion:
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
        return await self._post(request, _Completion)


class OllamaModel(_Server):
    """``POST {url}/api/chat``."""

    _path = "/api/chat"

    async def chat(self, system: str, prompt: str, schema: Schema) -> ChatReply:
        """Ask, and give the words of the message.

        :raises ModelFailed: there are none.
        """
        request = {
            "model": self.name,
            "messages": _messages(system, prompt),
            "stream": False,
            "format": schema,
            "options": {
                "temperature": TEMPERATURE,
                "num_predict": self._settings.answer_tokens_max,
                "num_ctx": CONTEXT_TOKENS,  # else it takes some thousands, and cuts what is longer without a word
            },
        }
        answer = await self._post(request, _OllamaAnswer)
        return self._reply(answer.message.content, (answer.prompt_eval_count, answer.eval_count), system + prompt)


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
