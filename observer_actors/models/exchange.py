"""One question to a model's server: bounded in time and in bytes, and its troubles told as `ModelFailed`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final, TypeVar

import httpx
import msgspec
import trio

from observer_actors.addresses import without_password
from observer_actors.backoff import asked_wait_s
from observer_actors.errors import said_by
from observer_actors.models.model import ModelFailed, ModelRefused
from observer_actors.problems import UNREADABLE
from observer_actors.visible import cut

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 1024 * 1024
"""Many times what 400 tokens take; a server that sends more is not what we think it is."""
_HTTP_OK: Final = range(200, 300)
SAID_BYTES_MAX: Final = 4_096
SAID_CHARS_MAX: Final = 300
"""Of what a server says where it gives no answer: it goes into the log."""
KEY_PART_CHARS_MIN: Final = 8
"""Fewer characters of a key tell little of it, and words may share them."""
SAID_S: Final = 1.0
_RETRY_AFTER_S_MAX: Final = 3_600.0


async def exchange(
    client: httpx.AsyncClient,
    url: str,
    request: object,
    kind: type[T],
    *,
    timeout_s: float,
    api_key: str = "",
) -> T:
    """POST a request as JSON and read the answer, JSON of `ANSWER_BYTES_MAX` at most, as one of a kind.

    :param timeout_s: for the whole exchange.
    :param api_key: sent as a bearer token unless it is empty.
    :raises ModelRefused: a status that is not 2xx.
    :raises ModelFailed: no answer in time, or one that is too long, or of another kind.
    """
    shown = without_password(url)
    # Uncompressed: what is counted is then what arrives.
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    try:
        with trio.fail_after(timeout_s):
            async with client.stream(
                "POST",
                url,
                content=msgspec.json.encode(request),
                headers=headers,
                timeout=None,  # the limit holds for the whole exchange
            ) as response:
                if response.status_code not in _HTTP_OK:
                    said = await _said(response, api_key)
                    status = response.status_code
                    raise ModelRefused(f"{shown}: status {status}{said and ': '}{said}", status, _wait_s(response))
                body = await _body(shown, response)
    except trio.TooSlowError as error:
        raise ModelFailed(f"{shown}: no answer within {timeout_s:g} s") from error
    except (httpx.InvalidURL, httpx.LocalProtocolError, ValueError) as error:
        # No such URL, host or header: it may quote a password that holds a slash, or our key.
        raise ModelFailed(f"{shown}: nothing can be sent there: {type(error).__name__}") from error
    except httpx.HTTPError as error:
        raise ModelFailed(f"{shown}: {type(error).__name__}: {said_by(error)}") from error
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise ModelFailed(f"{shown}: not an answer: {error}: {_quoted(body, api_key)}") from error


async def _said(response: httpx.Response, key: str) -> str:
    """Give the beginning of what a server says of its refusal; "" where it says nothing."""
    body = bytearray()
    with trio.move_on_after(SAID_S) as reading, suppress(httpx.HTTPError):
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) >= SAID_BYTES_MAX:
                reading.cancel()  # as in `_body`
    return _quoted(body, key)


def _quoted(body: bytes | bytearray, key: str) -> str:
    """Give the beginning of what a server sent, on one line, without our key."""
    text = " ".join(body[:SAID_BYTES_MAX].decode(errors="replace").split())
    return cut(_without(key, text), SAID_CHARS_MAX)


def _without(key: str, text: str) -> str:
    """Hide a key, and what of the text is a part of it: servers repeat keys shortened."""
    text = text.replace(key, "•••") if key else text
    shown, place = "", 0
    while place < len(text):
        end = place
        while end < len(text) and text[place : end + 1] in key:
            end += 1
        is_told = end - place >= KEY_PART_CHARS_MIN
        shown += "•••" if is_told else text[place]
        place = end if is_told else place + 1
    return shown


async def _body(url: str, response: httpx.Response) -> bytes:
    body = bytearray()
    with trio.CancelScope() as reading:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > ANSWER_BYTES_MAX:
                # httpx nests generators that close only when what they wait for ends or raises; leaving the loop would
                # abandon them.
                reading.cancel()
    if len(body) > ANSWER_BYTES_MAX:
        raise ModelFailed(f"{url}: an answer of more than {ANSWER_BYTES_MAX:,} bytes")
    return bytes(body)


def _wait_s(response: httpx.Response) -> float:
    """Give the seconds that a server asks us to wait; 0 when it does not say."""
    headers = response.headers
    return asked_wait_s(
        headers.get("Retry-After", ""), headers.get("Date", ""), now=time.time(), most_s=_RETRY_AFTER_S_MAX
    )
