"""The likely cause of a pattern by rules alone, and what an agent should do differently. Pure.

Every pattern gets one, with a confidence, or "unknown". A rule is a cause, words that speak for it, and how sure they
make us; the surest rule that fits counts, of several equally sure ones the first. What a template masks is
read from the examples: an HTTP status, and words in quotes, which count where all examples lead to the same cause.

The confidences are judgements, from "the words can hardly mean anything else" (0.9) to "often" (0.5); the tests hold
each rule to messages as real programs write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgspec
import re2

from observer_actors.patterns.grouping import Pattern
from observer_actors.visible import without_escapes


class Cause(StrEnum):
    """Why operations fail."""

    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    QUOTA = "quota"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    RESOURCE = "resource"
    NETWORK = "network"
    CERTIFICATE = "certificate"
    UPSTREAM = "upstream"
    CANCELLED = "cancelled"
    BUG = "bug"
    UNAVAILABLE = "unavailable"
    """What was asked for cannot be had: sold out, not enough of it, not possible in this state."""
    VALIDATION = "validation"
    UNKNOWN = "unknown"


ADVICE: Final = {
    Cause.TIMEOUT: "Ask for less at a time, or allow more time; look whether it happened before trying again.",
    Cause.RATE_LIMIT: "Wait as long as the answer says, then go slower; do not try again at once.",
    Cause.QUOTA: "Stop calling it and tell a person: trying again cannot help until the quota is raised or renewed.",
    Cause.AUTHENTICATION: "Do not try again with the same credentials; renew them, or tell a person.",
    Cause.PERMISSION: "Do not try again: use something that is allowed, or ask a person for the permission.",
    Cause.NOT_FOUND: "Look up what exists before naming it; do not guess names or ids.",
    Cause.CONFLICT: "Read the present state first, then decide anew; it may have been done already.",
    Cause.RESOURCE: "Ask for less at a time, and tell whoever runs it that it is out of memory, disk or handles.",
    Cause.NETWORK: "Try again after a pause that grows; if that fails too, use another way or tell a person.",
    Cause.CERTIFICATE: "Do not try again, least of all unchecked: tell whoever runs it what its certificate lacks.",
    Cause.UPSTREAM: "Try again after a pause that grows: the fault is on the other side.",
    Cause.CANCELLED: "Find out who cancelled it; do not start it again by itself.",
    Cause.BUG: "Do not try the same call again: tell whoever maintains it, and go another way meanwhile.",
    Cause.UNAVAILABLE: "Check what is available before asking for it, and offer an alternative.",
    Cause.VALIDATION: "Compare the arguments with the tool's description and mend them before calling again.",
    Cause.UNKNOWN: "Read the examples.",
}


class Ruling(msgspec.Struct, frozen=True):
    """What the rules say."""

    cause: Cause
    confidence: float
    """From 0 to 1."""
    advice: str
    because: str
    """The words that decided it; "" when none did."""


@dataclass(frozen=True)
class _Rule:
    cause: Cause
    confidence: float
    words: re.Pattern[str]


def _rule(cause: Cause, confidence: float, words: str) -> _Rule:
    return _Rule(cause, confidence, re.compile(words, re.IGNORECASE))


RULES: Final = (
    _rule(
        Cause.RATE_LIMIT,
        0.9,
        r"rate.?limit|too many requests|throttl|RESOURCE_EXHAUSTED|overloaded_error"
        r"|slow ?down|\bcode ?= ?ResourceExhausted|request ?limit ?exceeded|throughput ?exceeded|(?-i:\bRate exceeded)",
    ),
    _rule(
        Cause.QUOTA,
        0.9,
        r"quotas?[ _]?(?:\w+ ){0,3}(?:exceeded|exhausted|reached|full|depleted|limit)|\bEDQUOT\b"
        r"|\b(?:exceed\w*|exhausted|insufficient|reached|out of|over|hit)[ _]?(?:\w+ ){0,3}quota"
        r"|insufficient (?:credits?|funds)|credit balance is too low|usage limit|spending limit"
        r"|billing (?:account|details|hard|is not|issue|limit|not|required)|enable billing"
        r"|disk limit exceeded",
    ),
    _rule(Cause.QUOTA, 0.95, r"insufficient_quota|exceeded your (?:current )?quota|check your plan and billing"),
    _rule(
        Cause.CERTIFICATE,
        0.95,
        r"certificate.?verif|certificate (?:has |is )?(?:expired|not (?:yet )?valid|revoked|unknown)"
        r"|self.?signed certificate|certificate signed by unknown|unable to get (?:local )?issuer|hostname mismatch"
        r"|\bERR_CERT\w*|\bCERT_\w+|x509:|verify the first certificate|SELF_SIGNED_CERT|\bPKIX\b",
    ),
    _rule(
        Cause.TIMEOUT,
        0.9,
        r"time[d ]?[ -]?out|deadline|\bETIMEDOUT\b|too slow|took too long|no answer within"
        r"|maximum execution time",
    ),
    _rule(
        Cause.RESOURCE,
        0.9,
        r"out of memory|\bOOM(?:Killed)?\b|connection slots|MemoryError|no space left"
        r"|pool (?:is )?exhausted|too many (?:clients|connections)|\bENOSPC\b|disk full"
        r"|too many open files|\bEMFILE\b|insufficient memory|allowed memory size|cannot allocate memory|\bENOMEM\b"
        r"|\bfork: (?:\w+: )?resource temporarily",
    ),
    _rule(Cause.RESOURCE, 0.95, r"QueuePool limit"),
    _rule(
        Cause.AUTHENTICATION,
        0.9,
        r"unauthori[sz]ed(?:[\W_e]|$)|unauthenticated|not authenticated|authentication[ _]?(?:fail|required|error)"
        r"|failed to authenticate"
        r"|(?:invalid|expired|missing|bad|wrong|revoked|incorrect)[ _]?(?:\w+[ _])?"
        r"(?:x-)?(?:api.?key|token|credentials?|password)"
        r"|(?:invalid|wrong|bad|incorrect) (?:user ?name|e-?mail(?: address)?|login)(?:[-/]| or | and )password"
        r"|(?:invalid|expired|missing|bad|wrong) (?:\w+ )?signature"
        r"|(?:token|session|credentials?|JWT|signature) (?:has |have |is |are )?(?:been )?(?:expired|revoked|invalid)"
        r"|failed password|login failed|logon denied|locate credentials|using password"
        r"|security token .{0,40}is (?:invalid|expired)|signature .{0,40}does ?not ?match"
        r"|HTTP Basic: access denied|could not read (?:username|password)",
    ),
    _rule(
        Cause.PERMISSION,
        0.9,
        r"forbidden|permission|access ?(?:is |to .{1,80} )?denied|UnauthorizedAccess"
        r"|not (?:allowed|permitted|authori[sz]ed)|\bEACCES\b|\bEPERM\b"
        r"|AuthorizationFailed|not have authorization|insufficient (?:privilege|scope)|read-?only"
        r"|sudo: a (?:password|terminal) is required",
    ),
    _rule(
        Cause.NETWORK,
        0.9,
        r"\b(?:ECONN\w+|EPIPE|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN)\b"
        r"|connection ?(?:was )?(?:refused|reset|closed|aborted|lost)|clos\w+ (?:the |network )?connection"
        r"|connection ?error|connect failed|broken ?pipe|no route to host|failed to fetch|\bfetch failed"
        r"|cannot connect to|failed to connect|connection attempts failed|lost connection|server has gone away"
        r"|disconnected|connection to .{1,80} was refused|no such host|could not resolve host|UnknownHost|empty reply"
        r"|connection without response|(?-i:(?:^|: )(?:unexpected )?EOF$)"
        r"|\bERR_(?:CONNECTION|NAME|INTERNET|NETWORK|ADDRESS|TUNNEL)\w*"
        r"|(?:is|host|network|server|destination|service|currently) unreachable|name resolution|getaddrinfo"
        r"|name or service not known"
        r"|\bDNS\b"
        r"|socket hang up|\b(?:TLS|SSL)\b|handshake|SSL(?:EOF)?Error",
    ),
    _rule(
        Cause.BUG,
        0.9,
        r"AttributeError|\bKeyError|IndexError|NameError|UnboundLocalError|ZeroDivisionError|AssertionError"
        r"|NullPointer|nil pointer|segmentation fault|segfault|cannot read propert|undefined is not|is not a function"
        r"|NoneType|index out of (?:range|bounds)|OutOfBounds|stack ?overflow|call stack size|maximum recursion"
        r"|panicked|list index|object has no attribute|undefined (?:method|function)|ReferenceError|nil map"
        r"|NullReference|ClassCast|(?:division|divide) by zero|not implemented|unimplemented|NotImplementedError"
        r"|assertion (?:.{0,80} )?failed",
    ),
    _rule(
        Cause.CONFLICT,
        0.85,
        r"conflict|already[ _]?(?:exists|in use|taken|been|booked|running)|duplicate|unique constraint|version mismatch"
        r"|\bEADDRINUSE\b|could not serialize|concurrent update"
        r"|deadlock|is locked|\bstale\b|optimistic lock|\betag\b|precondition failed"
        r"|(?-i:\bABORTED\b)|\bcode ?= ?aborted|ConditionalCheckFailed|non-fast-forward"
        r"|(?:get|acquir\w+) (?:the \w+ )?lock|[:\]] file exists|FileExists|\bEEXIST\b"
        r"|would be overwritten|\(fetch first\)|used by another process",
    ),
    _rule(
        Cause.NOT_FOUND,
        0.85,
        r"not.?found|no ?such|has no (?:column|table|field|attribute|member)|does ?n[o']t exist|doesn't exist"
        r"|do not exist"
        r"|unknown (?:table|column|user|id|tool|function|model|database)|invalid object name|no rows in result"
        r"|cannot (?:find|import) (?:module|package|name)|unable to (?:find|locate|open database file)"
        r"|no matching distribution|could ?(?:not|n't) find|did not match any|not a git repository"
        r"|\bENOENT\b|no (?:row|record|result|match)s? (?:for|found|with)|(?:is|was) gone"
        r"|undefined (?:table|column|variable)|no module named",
    ),
    _rule(
        Cause.UNAVAILABLE,
        0.8,
        r"not enough|sold out|(?:is|are|was)?\s?not available|insufficient (?:balance|stock|seats|inventory|amount)"
        r"|out of stock|no longer available|\bno (?:\w+ ){1,2}available"
        r"|(?:can ?not|cannot|can't) be (?:used|changed|modified|cancelled|refunded)|failed_?precondition",
    ),
    _rule(
        Cause.CANCELLED,
        0.8,
        r"cancell?ed|cancell?ing|(?:operation|request) was aborted|AbortError|interrupted|SIGTERM|SIGINT"
        r"|KeyboardInterrupt|signal: terminated|context canceled|aborted by|doesn't want to proceed",
    ),
    _rule(
        Cause.UPSTREAM,
        0.8,
        r"bad gateway|service unavailable|internal server error|gateway time|upstream|temporarily unavailable"
        r"|server (?:had an )?error|\boverloaded\b|\bcode ?= ?internal\b|(?-i:\bINTERNAL:|StatusCode\.INTERNAL\b)",
    ),
    _rule(
        Cause.VALIDATION,
        0.7,
        r"invalid|validation|schema|malformed|parse error|syntax error|bad request|unprocessable"
        r"|missing (?:required|field|arg)"
        r"|(?:is|are) required|required (?:field|parameter|argument|propert)"
        r"|unexpected (?:token|keyword|argument|end|field|type)"
        r"|expected\b.{0,80}\b(?:got|but|found)|must (?:be|not|have|contain|match|appear)|should be|TypeError"
        r"|ValueError|out of range"
        r"|Expecting (?:value|property name|',' delimiter)|context[ _]length"
        r"|wrong type|does ?n[o']t (?:add up|match)|does not (?:add up|match)"
        r"|too (?:long|large|short|small|many)|cannot (?:parse|convert|decode)"
        r"|(?:null|key|check) constraint failed|error in your SQL|for input string|wrong number of|WRONGTYPE"
        r"|(?:unknown|unrecognized) (?:flag|option|argument)"
        r"|JSON|unsupported|not supported|illegal|violates (?:foreign key|check|not-null)",
    ),
    _rule(Cause.VALIDATION, 0.95, r"unexpected token|closing token|token near|method not allowed"),
    _rule(Cause.TIMEOUT, 0.5, r"\bslow\b"),
    # What nobody has caught may be anything: mostly its message says more.
    _rule(Cause.BUG, 0.5, r"traceback|unhandled exception"),
    _rule(Cause.QUOTA, 0.5, r"(?:\b|_)quotas?(?:\b|_)"),
    # What ends a process so is mostly the kernel, for want of memory.
    _rule(Cause.RESOURCE, 0.5, r"(?-i:^Killed(?:: .)?$)|signal: killed|\bexit(?:ed with)? (?:code|status):? 137\b"),
    _rule(Cause.UPSTREAM, 0.5, r"unavailable"),
)
_BY_STATUS: Final = {
    400: Cause.VALIDATION,
    401: Cause.AUTHENTICATION,
    402: Cause.QUOTA,
    403: Cause.PERMISSION,
    404: Cause.NOT_FOUND,
    408: Cause.TIMEOUT,
    409: Cause.CONFLICT,
    410: Cause.NOT_FOUND,
    412: Cause.CONFLICT,
    413: Cause.VALIDATION,
    415: Cause.VALIDATION,
    422: Cause.VALIDATION,
    423: Cause.CONFLICT,
    429: Cause.RATE_LIMIT,
    499: Cause.CANCELLED,
    500: Cause.UPSTREAM,
    502: Cause.UPSTREAM,
    503: Cause.UPSTREAM,
    504: Cause.TIMEOUT,
    507: Cause.RESOURCE,
}
"""RFC 9110, 6585 and 4918; 499 is nginx's."""
_SERVER_ERRORS: Final = range(500, 600)
REMEMBERED_MAX: Final = 8_192
"""All that a large page of patterns asks about: a text of 500 characters takes some 30 µs, a short one 6 to 14."""
REMEMBERED_CHARS_MAX: Final = 1_000
"""Of a text that is remembered; so all of them take 32 MB at worst."""
_STATUS_CONFIDENCE: Final = 0.85
_QUOTED_CONFIDENCE: Final = 0.8
"""At most: what is quoted may be a name."""
_STATUS: Final = re.compile(
    r"(?:\bHTTP(?:/[\d.]+)?|\bstatus(?:[ _]?code)?|\bcode|\berror)\W{0,4}(?P<status>[45]\d\d)\b", re.IGNORECASE
)
_MASK: Final = re.compile(r"<\w+>")
_IDENTIFIER: Final = re.compile(r"(?<!\w)[^\W_]*+_\w*")
"""What is quoted may be one: a table ``timeout_log`` is no timeout."""


def _set_of(rules: Iterable[_Rule]) -> Any:  # noqa: ANN401 - re2 has no types
    """Give what finds all rules that fit a text in one pass: one by one they take a millisecond, which adds up."""
    found = re2.Set.SearchSet(re2.Options())
    for item in rules:
        found.Add(f"(?i){item.words.pattern}")
    found.Compile()
    return found


AT_ONCE: Final = _set_of(RULES)


def rule(pattern: Pattern) -> Ruling:
    """Say what the rules make of a pattern."""
    errors = [example.error if example.error_at else example.line for example in pattern.examples]
    ruling = ruled(pattern.template, _status(map(without_escapes, errors)))
    if ruling.confidence >= _QUOTED_CONFIDENCE:
        return ruling
    shown = [ruled(_IDENTIFIER.sub("…", without_escapes(example.error)), None) for example in pattern.examples]
    if not shown or len({one.cause for one in shown}) > 1:
        return ruling
    confidence = min(_QUOTED_CONFIDENCE, *(one.confidence for one in shown))
    return msgspec.structs.replace(shown[-1], confidence=confidence) if confidence > ruling.confidence else ruling


def ruled(text: str, status: int | None) -> Ruling:
    """Say what the rules make of a text; what was said of short ones is remembered.

    :param text: masked, or as it came.
    :param status: the HTTP status that all texts with this mask name.
    """
    return _remembered(text, status) if len(text) <= REMEMBERED_CHARS_MAX else _ruled(text, status)


def _ruled(text: str, status: int | None) -> Ruling:
    text = _MASK.sub("…", text)
    rules = [RULES[number] for number in sorted(AT_ONCE.Match(text.encode("utf-8", "replace")) or ())]
    found = [(item.confidence, item.cause, match[0]) for item in rules if (match := item.words.search(text))]
    by_status = _BY_STATUS.get(status or 0, Cause.UPSTREAM if status in _SERVER_ERRORS else None)
    if by_status is not None:
        found.append((_STATUS_CONFIDENCE, by_status, f"status {status}"))
    if not found:
        return Ruling(Cause.UNKNOWN, 0.0, ADVICE[Cause.UNKNOWN], "")
    confidence, cause, because = max(found, key=lambda item: item[0])
    return Ruling(cause, confidence, ADVICE[cause], because)


_remembered: Final = lru_cache(REMEMBERED_MAX)(_ruled)


def status_in(text: str) -> int | None:
    """Give the HTTP status that a text names; None when it names none."""
    found = _STATUS.search(text)
    return int(found["status"]) if found else None


def _status(lines: Iterable[str]) -> int | None:
    """Give the HTTP status that all examples name; None when they name several, or one of them none."""
    named = set(map(status_in, lines))
    return named.pop() if len(named) == 1 else None
