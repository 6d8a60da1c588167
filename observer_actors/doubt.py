"""The witness's doubt: operations that claim success, and what speaks against it. Pure.

Nothing that was reported is changed. An op is *suspect* when it says ``success: true`` and its own words say
otherwise (`suspicion`; the playbook goes by it: a change of it is another version of the playbook, `fold.VERSION`).
It is *refuted* when the verdict on its run was a failure; a run is *silent* when its verdict was a failure and none
of its ops had said so. A verdict is an op of source ``auditor``; it belongs to the ops that carry the same run: the
first of ``attrs.run`` (or ``run_id``), ``attrs.trace_id`` (or ``traceId``) and ``sig_hash`` that an op has. An op
that carries only one of the other ids is found by that, in the newest run that had it. Ops and verdict may come in
either order; of two verdicts on a run the first counts.

Bounds: the newest `RUNS_MAX` runs, with `RUN_LABELS_MAX` endpoints each, and `OTHER_IDS_MAX` ids that lead to one;
`ENDPOINTS_MAX` endpoints and `SOURCES_MAX` sources by name, the others together (`counted_under`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import UNSET

from observer_actors.event import AUDITOR, OWN_SOURCE
from observer_actors.labels import bounded_endpoint, counted_under
from observer_actors.op import Op
from observer_actors.problems import UNREADABLE
from observer_actors.visible import without_escapes

RUNS_MAX: Final = 1_000
OTHER_IDS_MAX: Final = 2_000
RUN_LABELS_MAX: Final = 50
ENDPOINTS_MAX: Final = 200
SOURCES_MAX: Final = 50
LOOKED_AT_CHARS_MAX: Final = 4_096
"""Of a long output, the first and the last ones: exit codes stand at the end."""
OBJECTS_MAX: Final = 100
"""In a list that is looked into. A longer one holds what was found, and not what went wrong."""
RUN_CHARS_MAX: Final = 1_040
"""An attribute's value, and its name."""
PLAIN_CHARS_MAX: Final = 100
_NO_CLAIMS: Final = frozenset({AUDITOR, OWN_SOURCE})
"""Sources whose ops claim nothing about an agent's own work."""
_RUN_ATTRS: Final = (("run", "run"), ("run_id", "run"), ("trace_id", "trace_id"), ("traceId", "trace_id"))
"""An attribute's name, and that of what it is an id of."""

_ERROR_STATUS: Final = r"(?:4(?:0\d|1[0-8]|2[1-9]|31|51)|5(?:0\d|1[01]|2\d))"
"""Those that are assigned, and what proxies use: 450 may be a number of anything."""
_BEGINS: Final = re.compile(
    rf"""\s*(?:
      (?P<error>(?:(?:tool|api|an?|the|unexpected|internal|fatal)\s+){{0,3}}
        (?:[\w.]*(?:error|exception)|fatal|failed|failure)
        (?:\s+(?:occurred|executing|calling|running|invoking|while)\b[^:\n]{{0,100}})?
        \s*:(?!\s*(?:none|null|nil|false|ok|0)\b))
    | (?P<bare>(?-i:(?:Uncaught\s)?[A-Za-z][\w.]*[a-z](?:Error|Exception))\s*(?:$|\n|:)
        | error\s*$ | <(?:tool_use_)?error> | \[(?:error|fatal)\]\s*+\S | (?-i:panic:\s | Exception\ in\ thread\ ")
        | segmentation\ fault(?:\s\(core\ dumped\))?\s*(?:$|\n))
    | (?P<http>HTTP(?:/\d(?:\.\d)?)?\s+(?:status:?\s+|error:?\s+)?[45]\d\d\b
        | error\s+{_ERROR_STATUS}(?=\s*(?:$|[\n:.,;<({{-])))
    | (?P<status>status(?:\s+code)?\s*[:=]\s*{_ERROR_STATUS}\b)
    | (?P<phrase>[45]\d\d:?\s+(?:bad\ request|unauthorized|forbidden|not\ found|method\ not\ allowed|conflict|gone
        |unprocessable|too\ many\ requests|internal\ server\ error|bad\ gateway|service\ unavailable|gateway\ time-?out)
        (?=\s*(?:$|[\n:.,;<({{-])))
    | (?P<exit>exit\ (?:(?:code|status)\s*:?\s+-?[1-9]\d{{0,9}}\b | [1-9]\d{{0,2}}\s*$)
        | (?:rc|return\ ?code)(?:\s*[:=]\s*|\s)-?[1-9]\d{{0,9}}\s*(?:$|[\n,;])
        | CompletedProcess\([^\n]{{0,1000}}?\ returncode=-?[1-9])
    | (?P<json>\{{\s*(?P<Q>["'])(?:(?:error|errors|err|isError|is_error)(?P=Q)\s*:\s*+
        (?!null|none\b|false|""|\[\]|\{{\}}|0\b|'(?:none|null|nil|no|ok|n/?a|-|0|(?:0|no)\ errors?[^']{{0,20}})?')
        | (?:success|ok)(?P=Q)\s*:\s*(?-i:False)\b))
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_TRACEBACK: Final = "Traceback (most recent call last)"
_ANYWHERE: Final = {
    "exit": re.compile(
        r"exit(?<!\wexit)(?:[ _](?:code|status)\b[ :=]+-?[1-9]\d{0,9}"
        r"|(?:ed(?: with)?(?: (?:a )?non-?zero)?(?: (?:exit )?(?:code|status))?|(?=[:=]))[ :=]+[1-9]\d{0,2})\b"
    ),
    "status": re.compile(
        rf"status(?<!\wstatus)(?:(?:[ _]code)? ?[:=] ?{_ERROR_STATUS}\b"
        rf"|[ _]code {_ERROR_STATUS}(?:(?=\s*(?:$|[^\w\s]|\n))| (?:for|from|at|on|in|by|when|while|after|and|but)\b))"
    ),
}
"""Each begins with its word: to search for that takes a tenth of what a look behind before it would."""
_REASONS: Final = {
    "error": "the output begins with an error",
    "bare": "the output begins with an error",
    "http": "the output begins with an HTTP error status",
    "phrase": "the output begins with an HTTP error status",
    "json": "the output is an object with an error",
    "said": "the output says that it did not succeed",
    "traceback": "the output holds a traceback",
    "exit": "the output names an exit code that is not 0",
    "status": "the output names an HTTP error status",
}
_HTTP_ERRORS: Final = range(400, 600)
EXIT_DIGITS_MAX: Final = 6
_FAILED_WORDS: Final = frozenset({"error", "failed", "failure", "fail"})
_JSEND_WORDS: Final = frozenset({"error", "fail"})
"""What JSend says of its own answers, beside ``data``; of a job that was asked about most say "failed"."""


class _Output(msgspec.Struct):
    """What is read of an output that is a JSON object; the rest is passed over."""

    error: Any = None
    errors: Any = None
    Error: Any = None
    error_message: Any = None
    errorMessage: Any = None  # noqa: N815 - as AWS Lambda writes it
    isError: Any = None  # noqa: N815 - MCP's name
    is_error: Any = None
    success: Any = None
    ok: Any = None
    status: Any = None
    status_code: Any = None
    statusCode: Any = None  # noqa: N815 - as programs in JavaScript write it
    exit_code: Any = None
    exitCode: Any = None  # noqa: N815 - as above
    exit_status: Any = None
    returncode: Any = None
    message: Any = None
    detail: Any = None
    reason: Any = None
    result: Any = None
    response: Any = None
    metadata: Any = None
    code: Any = None
    data: Any = UNSET
    type: Any = None
    text: Any = None
    content: Any = None
    """These three are MCP's, whose results are lists of texts."""


_FENCED: Final = re.compile(r"```(?:json)?\s*([\[{].*[\]}])\s*```", re.DOTALL | re.IGNORECASE)
_decode_output: Final = msgspec.json.Decoder(_Output).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_outputs: Final = msgspec.json.Decoder(list[_Output]).decode
_NO_ERROR: Final = re.compile(
    r"(?:0|none|null|nil|false|no|ok|n/?a|-)?|(?:0|no) errors?(?: found| occurred)?\.?|none found", re.IGNORECASE
)


def suspicion(op: Op) -> str | None:
    """Say what in a successful op's own words speaks against its success; None where nothing does."""
    if not op.success:
        return None
    if op.error:
        return "it carries an error"
    text = op.output_summary
    return _remembered(text) if len(text) <= PLAIN_CHARS_MAX else _suspicion_of(text)


def _suspicion_of(text: str) -> str | None:
    text = without_escapes(text).strip().removeprefix("\ufeff")
    if text.startswith("```") and (fenced := _FENCED.fullmatch(text)) is not None:
        text = fenced[1]
    try:
        if text.startswith(('"{', '"[{')):  # encoded twice
            text = _decode_text(text).strip()
        if text.startswith("{") and text.endswith("}"):
            return _of_object(_decode_output(text), is_alone=text.count('":') == 1)
        if text.startswith("[{") and text.endswith("}]") and text.count("{") <= OBJECTS_MAX:
            return next(filter(None, map(_of_object, _decode_outputs(text))), None)
    except UNREADABLE:
        pass  # cut off, or no JSON after all: the beginning still says something
    if (error := _error_at_beginning(text)) is not None:
        return error
    if _TRACEBACK in text:
        return _REASONS["traceback"]
    if len(text) > 2 * LOOKED_AT_CHARS_MAX:
        text = f"{text[:LOOKED_AT_CHARS_MAX]}\n{text[-LOOKED_AT_CHARS_MAX:]}"
    text = text.lower()
    return next((_REASONS[word] for word, pattern in _ANYWHERE.items() if pattern.search(text)), None)


_remembered: Final = lru_cache(1_024)(_suspicion_of)
"""Most outputs are few short ones."""


def _error_at_beginning(text: str) -> str | None:
    """Say which error an output begins with. Our own cut is marked by an ellipsis: no text ends there."""
    found = _BEGINS.match(text if len(text) <= LOOKED_AT_CHARS_MAX else f"{text[:LOOKED_AT_CHARS_MAX]}…")
    return _REASONS[found.lastgroup or ""] if found else None


def run_of(op: Op) -> str | None:
    """Give the run that an op belongs to; None when it does not say."""
    return next(_ids_of(op), None) if op.attrs or op.sig_hash else None


def _ids_of(op: Op) -> Iterator[str]:
    if isinstance(op.attrs, dict):
        for name, kind in _RUN_ATTRS:
            value = op.attrs.get(name)
            if value not in (None, ""):
                yield f"{kind}:{value}"[:RUN_CHARS_MAX]
    if op.sig_hash:
        yield f"sig_hash:{op.sig_hash}"[:RUN_CHARS_MAX]


class Claims(msgspec.Struct):
    """Successes under one label."""

    claimed: int = 0
    """Ops that said they had succeeded."""
    suspect: int = 0
    judged: int = 0
    """Those of them whose run has a verdict."""
    refuted: int = 0
    """Those whose run's verdict was a failure."""


class Run(msgspec.Struct):
    """One run, as far as it has come."""

    verdict: bool | None = None
    failed: int = 0
    """Ops that said they had failed."""
    claims: dict[str, int] = msgspec.field(default_factory=dict)
    """Source, a line end, and endpoint -> ops that claimed success, while there is no verdict."""

    @property
    def is_silent(self) -> bool:
        """Whether it has failed and none of its ops had said so."""
        return self.verdict is False and not self.failed

    def claim(self, label: str, count: int) -> None:
        """Note claims, if there is room for their label."""
        if label in self.claims or len(self.claims) < RUN_LABELS_MAX:
            self.claims[label] = self.claims.get(label, 0) + count


class Doubts(msgspec.Struct):
    """All that has been counted so far. As JSON it is its own snapshot."""

    sources: dict[str, Claims] = msgspec.field(default_factory=dict)
    endpoints: dict[str, Claims] = msgspec.field(default_factory=dict)
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    runs_judged: int = 0
    runs_failed: int = 0
    runs_silent: int = 0
    runs: dict[str, Run] = msgspec.field(default_factory=dict)
    """The newest ones, oldest first."""
    other_ids: dict[str, str] = msgspec.field(default_factory=dict)
    """A further id of an op -> its first one, under which the run is kept."""

    def add(self, ops: Sequence[Op]) -> None:
        """Take ops in, in the order of their seq."""
        claimed = Counter([(op.source, op.endpoint) for op in ops if op.success and op.source not in _NO_CLAIMS])
        for op in ops:
            if op.source in _NO_CLAIMS:
                self._judge(op)
                continue
            if op.success and (reason := suspicion(op)) is not None:
                self._suspect(op, reason)
            if (op.attrs or op.sig_hash) and (key := self._key(op)) is not None:
                self._join(op, self._run(key))
        for (source, endpoint), count in claimed.items():
            for claims in self._labels(source, endpoint):
                claims.claimed += count

    def _suspect(self, op: Op, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        for claims in self._labels(op.source, op.endpoint):
            claims.suspect += 1

    def _join(self, op: Op, run: Run) -> None:
        """Note what an op has claimed with its run, or with the verdict that is known already."""
        if not op.success:
            self.runs_silent -= run.is_silent
            run.failed += 1
        elif run.verdict is not None:
            self._count(op.source, op.endpoint, 1, refuted=not run.verdict)
        else:
            run.claim(f"{op.source}\n{bounded_endpoint(op.endpoint)}", 1)

    def _judge(self, op: Op) -> None:
        key = self._key(op) if op.source == AUDITOR else None
        if key is None:
            return
        run = self._run(key)
        if run.verdict is not None:
            return
        run.verdict = op.success
        self.runs_judged += 1
        self.runs_failed += not op.success
        self.runs_silent += run.is_silent
        self._count_claims(run, refuted=not op.success)

    def _count_claims(self, run: Run, *, refuted: bool) -> None:
        """Count what a run's ops have claimed, now that there is a verdict."""
        for label, count in run.claims.items():
            source, _, endpoint = label.partition("\n")
            self._count(source, endpoint, count, refuted=refuted)
        run.claims = {}

    def _count(self, source: str, endpoint: str, count: int, *, refuted: bool) -> None:
        for claims in self._labels(source, endpoint):
            claims.judged += count
            claims.refuted += count if refuted else 0

    def _labels(self, source: str, endpoint: str) -> tuple[Claims, Claims]:
        endpoint = bounded_endpoint(endpoint)
        return (
            counted_under(self.sources, source, SOURCES_MAX, Claims),
            counted_under(self.endpoints, endpoint, ENDPOINTS_MAX, Claims),
        )

    def _key(self, op: Op) -> str | None:
        """Give the run of an op, and note its other ids."""
        ids = tuple(_ids_of(op))
        if not ids:
            return None
        key = ids[0] if ids[0] in self.runs else self.other_ids.get(ids[0], ids[0])
        for other in ids:
            if other == key:
                continue
            if other in self.runs:  # those who came before named it alone
                self._unite(key, other)
            self.other_ids.pop(other, None)
            self.other_ids[other] = key
        while len(self.other_ids) > OTHER_IDS_MAX:
            del self.other_ids[next(iter(self.other_ids))]
        return key

    def _unite(self, key: str, other: str) -> None:
        """Make one run of two that turn out to be one; of two verdicts the first run's counts."""
        part = self.runs.pop(other)
        for led, to in self.other_ids.items():
            if to == other:
                self.other_ids[led] = key
        run = self.runs.get(key)
        if run is None:
            self.runs[key] = part
            return
        self.runs_silent -= run.is_silent + part.is_silent
        if part.verdict is not None and run.verdict is not None:
            self.runs_judged -= 1
            self.runs_failed -= not part.verdict
        elif (verdict := run.verdict if part.verdict is None else part.verdict) is not None:
            self._count_claims(run if run.verdict is None else part, refuted=not verdict)
            run.verdict = verdict
        run.failed += part.failed
        for label, count in part.claims.items():
            run.claim(label, count)
        self.runs_silent += run.is_silent

    def _run(self, key: str) -> Run:
        run = self.runs.get(key)
        if run is None:
            if len(self.runs) >= RUNS_MAX:
                del self.runs[next(iter(self.runs))]
            run = self.runs[key] = Run()
        return run


def _of_object(output: _Output, *, is_alone: bool = False) -> str | None:
    """Say what speaks against a success in an object.

    :param is_alone: it has one field.
    """
    if _has_error(output):
        return _REASONS["json"]
    if _is(output.success, value=False) or _is(output.ok, value=False):
        return _REASONS["said"]
    if (error := _error_at_beginning(_first_text(output))) is not None:
        return error
    if _is(output.success, value=True) or _is(output.ok, value=True):
        return None  # a status is then that of what was asked about
    return _of_codes(output, is_alone=is_alone)


def _has_error(output: _Output) -> bool:
    errors = (output.error, output.errors, output.Error, output.error_message, output.errorMessage)
    if any(map(_is_error, errors)) or _is(output.isError, value=True) or _is(output.is_error, value=True):
        return True
    for inner in (output.result, output.response):
        if isinstance(inner, dict) and (_is(inner.get("isError"), value=True) or _is_error(inner.get("error"))):
            return True
    return False


def _of_codes(output: _Output, *, is_alone: bool) -> str | None:
    # A status may be that of what was asked about, unless it is all that there is, or something says why.
    says_why = is_alone or bool(output.message or output.detail or output.reason)
    status = output.status.lower() if isinstance(output.status, str) else ""
    is_own = says_why or (status in _JSEND_WORDS and (output.data is not UNSET or _number(output.code) in _HTTP_ERRORS))
    if status in _FAILED_WORDS and is_own:
        return _REASONS["said"]
    codes = [output.status_code, output.statusCode, *([output.status] if says_why else [])]
    if any(_number(code) in _HTTP_ERRORS for code in codes):
        return _REASONS["status"]
    inner = output.metadata.get("exit_code") if isinstance(output.metadata, dict) else None
    codes_of_exit = (output.exit_code, output.exitCode, output.exit_status, output.returncode, inner)
    return _REASONS["exit"] if any(map(_number, codes_of_exit)) else None


def _first_text(output: _Output) -> str:
    """Give the first text of a result as MCP has it; "" when it is none."""
    kind, text = output.type, output.text
    if isinstance(output.content, list) and output.content and isinstance(output.content[0], dict):
        kind, text = output.content[0].get("type"), output.content[0].get("text")
    return text if kind == "text" and isinstance(text, str) else ""


def _is(said: Any, *, value: bool) -> bool:  # noqa: ANN401 - whatever JSON holds
    """Tell a boolean, also one that was written as a text."""
    return said is value or (isinstance(said, str) and said.lower() == str(value).lower())


def _is_error(value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    """Tell an error from what says that there is none."""
    if isinstance(value, str):
        return _NO_ERROR.fullmatch(value.strip()) is None
    if isinstance(value, dict):
        return any(value.values()) and value.get("code") not in (0, "0")
    return bool(value)


def _number(value: Any) -> int:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < EXIT_DIGITS_MAX:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
