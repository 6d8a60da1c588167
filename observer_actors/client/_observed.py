"""A call to the gateway with a witness: made, timed, judged, reported, and handed back."""

from __future__ import annotations

import encodings.utf_8_sig  # noqa: F401 - the first answer would import it, in the thread that `Observer` calls from
import json
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, NoReturn
from uuid import uuid4

import anyio
import msgspec
from msgspec import UNSET

from observer_actors.client._delivery import Answer
from observer_actors.client._events import record_external_op
from observer_actors.client._guest import tried
from observer_actors.client._ledger import LEDGER
from observer_actors.client._limits import bounded_seconds
from observer_actors.client._places import gateway_base
from observer_actors.client._texts import text
from observer_actors.client._wire import fetch, join
from observer_actors.client._wording import summarize, text_of
from observer_actors.ecmascript import truthy
from observer_actors.errors import ObserverError, Unreachable
from observer_actors.labels import cut_between_words
from observer_actors.op import HTTP_STATUS, Op, Seq, iso_milliseconds

CALL_SECONDS: Final = 300.0
"""What Bun's fetch, and so the program that we replace, waits for an answer."""
REPORT_SECONDS: Final = 2.0
"""What a call may take longer because of its witness. A commit takes milliseconds; a daemon that needs more is in
trouble of its own, and must not pass it on."""
_HTTP_OK: Final = range(200, 300)
_SHOWN_CHARS: Final = 200


class Observed(NamedTuple):
    """What a call gave; also unpacks as ``data, op``."""

    data: Any
    """The gateway's answer: decoded JSON of any kind. ``{"error": message}`` when the call failed."""
    op: Op
    """As it was reported. ``op.seq`` is its number in the journal, 0 when it is not known to be stored."""


class _Result(NamedTuple):
    """A call's answer, and how it is judged."""

    data: Any
    error: str | None = None
    status: int = 200


async def observed(
    endpoint: str,
    body: object,
    description: str,
    *,
    gateway_url: str | None = None,
    observer_url: str | None = None,
    timeout_seconds: float = CALL_SECONDS,
    report_seconds: float = REPORT_SECONDS,
) -> Observed:
    """POST ``body`` as JSON to the gateway, and report the outcome to the daemon. On trio and on asyncio.

    A success is a call with a JSON answer in which ``error`` is absent or false, whatever its HTTP status (a status
    that is not 2xx stands in the op's ``attrs`` as ``http_status``). A failure is anything else: no connection, no
    answer in time, no JSON, a body that is no JSON. Neither the gateway nor the daemon makes this raise; reports
    that are lost are counted in `statistics` and logged once in a while. A call that is cancelled is not reported.

    :param endpoint: path below the gateway's base URL, such as ``/sql``; also the op's endpoint.
    :param body: what msgspec encodes as JSON: builtins, dataclasses, structs, times.
    :param description: the op's input summary; what is beyond 10,000 characters is cut.
    :param gateway_url: by default GATEWAY_URL, else http://localhost:3700.
    :param observer_url: by default OBSERVER_URL, else 127.0.0.1 at OBSERVER_PORT or 3800.
    :param timeout_seconds: for the gateway's whole answer.
    :param report_seconds: for the report, on top of that.
    :raises ConfigInvalid: a time limit is no number; nothing was done.
    """
    report_s = bounded_seconds("report_seconds", report_seconds)
    observed = await called(endpoint, body, description, gateway_url=gateway_url, timeout_seconds=timeout_seconds)
    await _report(observed.op, observer_url, report_s)
    return observed


async def called(
    endpoint: str,
    body: object,
    description: str,
    *,
    gateway_url: str | None = None,
    timeout_seconds: float = CALL_SECONDS,
) -> Observed:
    """Call the gateway and judge the answer, for those who report it in their own way."""
    limit_s = bounded_seconds("timeout_seconds", timeout_seconds)
    endpoint, description = text(endpoint), text(description)
    started = anyio.current_time()
    result = await _call(join(gateway_base(gateway_url), endpoint), body, limit_s)
    op = _op(endpoint, description, result, duration_ms=round((anyio.current_time() - started) * 1000))
    LEDGER.call_ended(success=op.success)
    return Observed(result.data, op)


async def _call(url: str, body: object, timeout_seconds: float) -> _Result:
    content = tried(msgspec.json.encode, body)
    if isinstance(content, Exception):
        return _failed(f"the body is no JSON: {text(content)}")
    try:
        answer = await fetch(url, content, seconds=timeout_seconds)
    except Unreachable as trouble:
        return _failed(str(trouble))
    return _judge(answer)


def _judge(answer: Answer) -> _Result:
    try:
        # As fetch does: UTF-8 whatever the header says, a byte order mark passed over, bad bytes replaced.
        data = json.loads(answer.body.decode("utf-8-sig", "replace"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        shown = cut_between_words(answer.body[: 4 * _SHOWN_CHARS].decode("utf-8", "replace"), _SHOWN_CHARS)
        why = "nested too deeply" if isinstance(error, RecursionError) else "no JSON"
        return _failed(f"HTTP {answer.status}, and the answer is {why}: {shown}", answer.status)
    error_given = data.get("error") if isinstance(data, dict) else None
    if truthy(error_given):
        return _Result(data, text_of(error_given), answer.status)
    return _Result(data, None, answer.status)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity, which Python's decoder takes and JSON does not know


def _failed(message: str, status: int = 200) -> _Result:
    message = text(message)
    return _Result({"error": message}, message, status)


def _op(endpoint: str, description: str, result: _Result, *, duration_ms: int) -> Op:
    success = result.error is None
    return Op(
        timestamp=iso_milliseconds(datetime.now(UTC)),
        endpoint=endpoint,
        input_summary=description,
        success=success,
        duration_ms=duration_ms,
        output_summary=summarize(result.data) if result.error is None else text(f"ERROR: {result.error}"),
        error=UNSET if result.error is None else text(result.error),
        source="mcp",
        id=uuid4().hex,
        attrs=UNSET if result.status in _HTTP_OK else {HTTP_STATUS: result.status},
    )


async def _report(op: Op, observer_url: str | None, report_seconds: float) -> None:
    try:
        receipt = await record_external_op(op, observer_url=observer_url, timeout_seconds=report_seconds)
    except ObserverError as trouble:
        LEDGER.warn_now_and_then(trouble)
        return
    op.seq = Seq(receipt.seq)
