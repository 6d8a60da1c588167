"""Whatever a host hands us, as the texts and scalars of an event. Pure; nothing here raises.

A snapshot: it is made in the caller's thread, so that what the host changes later is not what was reported.
"""

from __future__ import annotations

import encodings.utf_16_le  # noqa: F401 - the first text that is not ASCII would import it
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final
from urllib.parse import quote_plus, unquote_plus, urlencode

import msgspec

from observer_actors.client._beginning import beginning
from observer_actors.client._guest import attempt_of_host, kind_of
from observer_actors.labels import cut_between_words, last_word_end, stable_id
from observer_actors.op import ATTR_CHARS_MAX, ATTR_NAME_CHARS_MAX, ATTRS_MAX, NAME_CHARS_MAX, Scalar

TEXT_CHARS_MAX: Final = 10_000
"""Four such texts, every character escaped as six bytes, fit into the 262,144 bytes of an event."""
QUERY_BYTES_MAX: Final = 12_000
ENDPOINT_BYTES_MAX: Final = 4_000
INPUT_BYTES_MAX: Final = 8_000
ATTRS_BYTES_MAX: Final = 4_000
ERRORS_SHOWN_MAX: Final = 3
"""Of the errors in an exception group."""
_INTEGERS: Final = range(-(2**63), 2**64)
"""What JSON readers, ours too, take for a whole number."""


def text(value: object) -> str:
    """Give a text as it is, None as "", and anything else as JSON, or as it shows itself; cut to `TEXT_CHARS_MAX`."""
    if type(value) is str and len(value) <= TEXT_CHARS_MAX and value.isascii():
        return value
    if type(value) is not str:
        value = "" if value is None else _said(value)
    if len(value) > TEXT_CHARS_MAX:
        value = cut_between_words(value, TEXT_CHARS_MAX)
    return value if value.isascii() else _encodable(value)


def shown(value: object) -> str:
    """Give the beginning of `str(value)`, or at least what kind of value it is."""
    return attempt_of_host("", _beginning_of_str, value) or f"<{kind_of(value)}>"


def error_text(error: BaseException) -> str:
    """Say an exception as ``ValueError: no such row``; of a group, the errors that are in it."""
    errors = list(islice(_leaves(error), ERRORS_SHOWN_MAX))
    return text("; ".join(map(_named, errors)))


def scalar(value: object) -> Scalar:
    """Give an attribute's value: what is no scalar is made a text."""
    if value is None or type(value) is bool or type(value) is float:
        return value
    if type(value) is int and value in _INTEGERS:
        return value
    return cut_between_words(text(value), ATTR_CHARS_MAX)


def run_name(run: str) -> str:
    """Give the name of a run as the daemon takes it, in questions and events alike.

    Of one with more than `NAME_CHARS_MAX` characters that is the beginning, up to a blank, and a hash.
    """
    if len(run) <= NAME_CHARS_MAX:
        return run
    mark = "…" + stable_id("run", run)
    return run[: last_word_end(run, NAME_CHARS_MAX - len(mark))] + mark


def scalars(attributes: Mapping[str, object], known: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Give the first `ATTRS_MAX` attributes: the known ones first, which no other of that name replaces."""
    found: dict[str, Scalar] = {
        name: run_name(text(value)) if name == "run" else value for name, value in known.items()
    }
    for name, value in attributes.items():
        if len(found) >= ATTRS_MAX:
            break
        shown_name = text(name)[:ATTR_NAME_CHARS_MAX]
        if shown_name not in known:
            found[shown_name] = scalar(value)
    return found


def in_a_url(value: str, bytes_max: int) -> str:
    """Give as much of a text as takes no more than so many bytes when a URL quotes it; never half a character."""
    quoted = quote_plus(value[:bytes_max], errors="replace")
    if len(quoted) <= bytes_max:
        return value[:bytes_max]
    return unquote_plus(re.sub("%.?$", "", quoted[:bytes_max]), errors="ignore")


def advice_query(asked: Mapping[str, str]) -> dict[str, str]:
    """Give the parameters of a request for advice: what is not empty, the input cut to the room that the others leave.

    Attributes are a JSON object, which cannot be cut: those that find no room are left out.
    The head of a request holds 16,384 bytes, and a character that is not ASCII takes up to twelve in a URL.
    """
    query = {name: value for name, value in asked.items() if value}
    if "endpoint" in query:
        query["endpoint"] = in_a_url(query["endpoint"], ENDPOINT_BYTES_MAX)
    if len(quote_plus(query.get("attrs", ""))) > ATTRS_BYTES_MAX or ("attrs" in query and _room_for_input(query) < 0):
        del query["attrs"]
    if "input" in query:
        query["input"] = in_a_url(query["input"], max(0, min(INPUT_BYTES_MAX, _room_for_input(query))))
    return query


def _room_for_input(query: Mapping[str, str]) -> int:
    return QUERY_BYTES_MAX - len(urlencode({**query, "input": ""}, errors="replace"))


def _said(value: object) -> str:
    enough = attempt_of_host(None, beginning, value, TEXT_CHARS_MAX)
    if enough is None:  # it changes under our hands, or does not let itself be looked at
        return f"<{kind_of(value)}>"
    said = attempt_of_host(None, _json, enough)
    return shown(enough) if said is None else said


def _beginning_of_str(value: object) -> str:
    return _str(value)[: TEXT_CHARS_MAX + 1]


def _str(value: object) -> str:
    """Give a text that is no more than one: a kind of the host's (Django's `SafeString`) may show itself as itself."""
    return str.__str__(str(value))


def _json(value: object) -> str:
    if isinstance(value, str):
        return _str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    said = _encoder.encode(value)
    return str(msgspec.json.decode(said)) if said.startswith(b'"') else said.decode()


_encoder: Final = msgspec.json.Encoder(enc_hook=shown)


def _encodable(value: str) -> str:
    """Join halves of characters that came apart, and replace those without another half: an event is UTF-8."""
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_IN_A_GROUP: Final[Callable[[Any], tuple[BaseException, ...]]] = BaseExceptionGroup.__dict__["exceptions"].__get__
"""What a group was made of; what one of the host's shows instead may be anything, itself too."""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]  # a group may be nested more deeply than a stack has room
    while waiting:
        one = waiting.pop()
        if issubclass(type(one), BaseExceptionGroup):  # `isinstance` would ask the host's own `__class__`
            waiting.extend(reversed(_IN_A_GROUP(one)))
        else:
            yield one


def _named(error: BaseException) -> str:
    said = attempt_of_host("", _beginning_of_str, error)
    return f"{kind_of(error)}: {said}" if said else kind_of(error)
