r"""From an error's text to its template: what varies from case to case gives way to a mask.

Pure and deterministic: the same text gives the same template, today and after a restart. All digits count as the same
one, so that texts which differ in digits alone need to be looked at once (`digits_alike`). Then one pass of one regular
expression, in which each alternative either fails within a bounded number of characters or takes what it has read, so
that the time grows with the text and not with its square; and then the words that hold masks are simplified:

* An identifier with one varying part keeps its stem, because the stem says what kind of thing it names:
  ``gift_card_5094406`` becomes ``gift_card_<num>``. One with several is an id as a whole: ``rdd_42_15`` becomes
  ``<any>``.
* A list of values is one value, however long: ``1, 2, 3`` becomes ``<any>``. Groups of up to four words that are
  repeated with other values stand there once.

Inside the program a mask is one of the characters that Unicode keeps for use within a program (`MARKS`), so that no
text is taken for one; outside it is ``<num>``, ``<path>`` and so on. What a text itself calls ``<num>`` is written
``<\num>``, so that the two are told apart, and have two ids.

What is *not* masked although it is quoted: a key (``"code": 5`` keeps ``"code"``); the value of a key that holds prose
(``"error": "no such table"``), of which the inside is masked like any other text, since otherwise all JSON errors of an
endpoint would be the same; the method of a quoted HTTP request line; and the reason of a quoted HTTP status
(``'404 Not Found'``, as httpx writes it).

Whoever changes what comes out of here gives it a new `ALGORITHM_VERSION`, and the playbook's rules, which use it too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from observer_actors.quoting import PLACEHOLDERS
from observer_actors.visible import without_escapes

ALGORITHM_VERSION: Final = 7
"""Kept in the record of each pattern, so that a later grouping can tell its own from the older ones."""
TEXT_CHARS_MAX: Final = 2_000
"""Characters of an error that are looked at: a message and the head of its stack trace, not a dump."""
ESCAPED_TIMES_MAX: Final = 4
"""As much is looked at of a text with colours, which are no part of it."""
MARKED_CHARS_MAX: Final = 1_000
"""What is kept of a marked text: 2,000 patterns then hold two megabytes of templates, not an unknown amount."""
TEMPLATE_CHARS_MAX: Final = 4 * MARKED_CHARS_MAX
"""A template is never longer: every other character a mark, and a mark written in seven."""
REPEATED_WORDS_MAX: Final = 4
"""Words of a group that is looked for in repetition: name, value, value, flag."""
REMEMBERED_MAX: Final = 2_048
REMEMBERED_CHARS_MAX: Final = 400
"""Of a text whose template is remembered: at worst, with a mask at every other character, all take 16 MB."""
NESTING_MAX: Final = 4
"""Objects within objects, ``Window{1f token=Token{2e}}``, that are simplified from the inside out."""

_FIRST_MARK: Final = 0xFDD0
_MARK_OF: Final = {name: chr(_FIRST_MARK + number) for number, name in enumerate(PLACEHOLDERS)}
ANY: Final = _MARK_OF["any"]
MARKS: Final = frozenset(_MARK_OF.values())
_M: Final = f"[{chr(_FIRST_MARK)}-{chr(_FIRST_MARK + len(PLACEHOLDERS) - 1)}]"

_ALIKE: Final = str.maketrans("123456789", "0" * 9)
_ASCII_ALIKE: Final = bytes.maketrans(b"123456789", b"0" * 9)
_SHOWN: Final = {ord(mark): f"<{name}>" for name, mark in _MARK_OF.items()}
_WRITTEN: Final = re.compile(rf"<(\\*)({'|'.join(PLACEHOLDERS)})>")
"""What `write_template` writes for a mark, or for a text that says the same: with one backslash more than it has."""
_SAMPLES: Final = {
    "url": "http://a/b",
    "email": "a@b.c",
    "str": '"a"',
    "uuid": "00000000-0000-0000-0000-000000000000",
    "time": "0000-00-00",
    "ip": "0.0.0.0",  # noqa: S104 - nothing listens there
    "path": "/a/b",
    "hex": "0x0",
    "num": "0",
}
"""The masks of version 1, each with what it stood for."""
_OCTAL_QUOTE: Final = re.compile(r"\\0(?:42|47)")
"""A quote as syslog daemons and C programs escape it."""

_HOST_ENDS: Final = (
    "com|net|org|edu|gov|mil|int|info|biz|local|internal|localdomain|lan|intranet|cluster"
    "|(?:[a-z0-9\\-]+\\.)+(?:ar|at|au|be|br|ca|ch|cl|cn|cz|de|dk|es|eu|fi|fr|gr|hk|hu|ie|il|jp|kr|mx|nl|nz|pl|pt|ro|ru"
    "|se|sg|sk|tr|tw|ua|uk|us|vn|za)"
)
"""Ends of host names that are no ends of module or class names; two-letter ones only behind two labels or more."""
_REASONS: Final = (
    "bad request|unauthorized|payment required|forbidden|not found|method not allowed|not acceptable"
    "|proxy authentication required|request timeout|conflict|gone|length required|precondition failed"
    "|(?:request entity|content|payload) too large|request-uri too long|uri too long|unsupported media type"
    "|(?:requested )?range not satisfiable|expectation failed|i'm a teapot|misdirected request"
    "|unprocessable (?:entity|content)|locked|failed dependency|too early|upgrade required|precondition required"
    "|too many requests|request header fields too large|unavailable for legal reasons|internal server error"
    "|not implemented|bad gateway|service unavailable|gateway timeout|http version not supported"
    "|variant also negotiates|insufficient storage|loop detected|not extended|network authentication required"
).replace(" ", "[ ]")
"""Of HTTP's errors, in the words of RFC 9110, of those it replaced, and of IANA's registry."""
_FILE_ENDS: Final = (
    "py|pyc|js|mjs|cjs|ts|tsx|jsx|c|cc|cpp|cxx|h|hh|hpp|java|kt|go|rs|rb|php|cs|swift|scala|clj|ex|erl|sh|pl|lua|sql"
    "|so|dll|exe|jar|conf|cfg|ini|log|txt|json|xml|ya?ml|toml|html?|css|md|csv|lock"
)

_VARYING: Final = re.compile(
    rf"""
    # The first alternative that fits at a place wins. The groups in capitals are parts of an alternative.
    # Within a word, behind a letter, only a number may begin: so most places are done with at once.
    (?<![a-z])(?:
      (?P<said>(?P<Q>["'])
        (?P<KEY>error|err|message|msg|details?|reason|description|exception|title|code|type|status)(?P=Q)
        (?P<COLON>\s?:\s?)(?P<R>["'])(?P<PROSE>(?:(?!(?P=R))[^\\])*)(?P=R))
    | (?P<key>"[^"\\:]{{1,64}}"(?=\s?:) | (?<!\w)'[^'\\:]{{1,64}}'(?=\s?:))
    | (?P<request>"(?P<METHOD>GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE)[ ][^"\\]*")
    | (?P<status>(?P<S>["'])\d{{3}}(?P<REASON>[ ](?:{_REASONS}))(?P=S))
    | (?P<url>(?<!\w)[a-z][a-z0-9+.\-]{{1,15}}://[^\s"'<>]+)
    | (?P<email>(?<![\w.+\-])[\w.+\-]{{1,64}}@\w[\w\-]*(?:\.[\w\-]+)+)
    | (?P<str>\\?"(?:[^"\\]|\\[^"])*\\?" | (?<!\w)'(?:[^'\\]|\\.)*'(?!\w) | `[^`']+[`'])
    | (?P<uuid>(?<![0-9a-z])[0-9a-f]{{8}}-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}}(?![0-9a-z]))
    | (?P<time>
          (?<![0-9a-z])\d{{4}}[-/]\d\d[-/]\d\d
            (?:[t ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:z|[ ]?[+\-]\d\d:?\d\d)?)?(?![0-9])
        | (?:\b(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{{0,6}},?[ ])?
            \b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{{0,6}}[ ]\d\d?,?
            (?:[ ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:[ ][a-z]{{3,4}}(?=[ ]\d{{4}}))?(?:[ ]\d{{4}}(?!\d))?
        | (?<![0-9a-z:])\d\d?:\d\d:\d\d(?:[.,]\d+)?(?![0-9:]))
    | (?P<mac>(?<![0-9a-z:\-])(?:[0-9a-f]{{2}}:){{5,}}[0-9a-f]{{2}}(?![0-9a-z:]))
    | (?P<ip>
          (?<![\w.])\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d{{1,5}}|/\d{{1,2}})?(?![\w.]\d)
        | (?<![\w:])(?:[0-9a-f]{{1,4}}:){{7}}[0-9a-f]{{1,4}}(?![\w:])
        | (?<![\w:])(?=[a-f:]{{0,39}}\d)(?:::|(?:[0-9a-f]{{1,4}}:){{1,6}}:)
            (?:[0-9a-f]{{1,4}}:){{0,6}}[0-9a-f]{{1,4}}(?![\w:]))
    | (?P<host>(?<![\w.\-/@])(?:
          (?:[a-z0-9_][a-z0-9_\-]{{0,62}}\.){{1,8}}(?:{_HOST_ENDS})\.?(?::\d{{1,5}})?(?![\w\-]|\.\w)
        | (?:[a-z0-9_][a-z0-9_\-]{{0,62}}\.){{1,8}}(?!(?:{_FILE_ENDS}):)[a-z][a-z0-9\-]{{1,62}}:\d{{1,5}}(?![\w.\-])))
    | (?P<path>(?<![\w/<>.~])(?:~|\.{{1,2}})?(?:/[\w.@%+=~\-]+)+(?::\d+)*/? | (?<!\w)[a-z]:\\[^\s"'<>|]+
        | (?<![\w/<>.~@:\-])[\w.][\w.\-]{{0,63}}(?:/[\w.@%+=~\-]{{1,64}}){{0,20}}/[\w@%+=~\-]{{1,64}}
          (?:\.[\w\-]{{1,32}}){{0,3}}\.(?:{_FILE_ENDS})(?::\d+)*(?![\w/])
        | (?<![\w\\])\\\\[\w.\-]{{1,64}}(?:\\[\w.$@%+=~\-]{{1,64}}){{1,20}})
    | (?P<hex>(?<![0-9a-z])(?:0x[0-9a-f]+|(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{{8,}})(?![0-9a-z]))
    | (?P<value>(?:(?<=[=:])|(?<=[=:][ ]))(?:true|false|null|none|nil|undefined)\b(?![ ]?\w))
    )
    # A number with what clings to it: one letter before (E42, node-D0), sign, decimals, groups of digits, per cent, a
    # unit (30s, 4.5 GB, 5 minutes), or the rest of a mixed identifier (3f9x2).
    | (?P<num>(?:(?<![a-z0-9.)\]])[+\-]|(?<![\w<>])[<>]|(?<![a-z0-9])[a-z](?=\d))?\d+(?:[.,:]\d+)*
        (?:%|[a-z0-9]+|[ ](?:[kmgtp]?i?b|ms|us|ns|s|secs?|(?:milli|micro)?seconds?|mins?|minutes?|h|hrs?|hours?
          |days?|weeks?)\b)?)
    """,
    re.VERBOSE | re.IGNORECASE,
)

# The look behind at the beginning of these: a find that could begin earlier does. Without it each letter of a long word
# would be tried, to the word's end. What follows ``++`` or ``*+`` is none of what was taken: nothing is tried again.
_ID: Final = re.compile(rf"(?<![\w.\-])[\w.\-]*+{_M}(?:[\w.\-+:/@#$~]*+{_M})+[\w\-]*+(?:\.\w[\w\-]*+)*+")
"""A word with several masks, and what clings to it."""
_HOST_NAME: Final = re.compile(
    rf"(?<![\w\-])(?<![\w\-]\.)(?:[\w\-]++\.)*+[\w\-]*+{_M}[\w\-]*+(?:\.(?=[\w\-$]*[a-z])[\w\-$]++){{2,}}+",
    re.IGNORECASE,
)
"""A dotted name that varies in one place, with two labels or more behind it: ``dsl-17.example.nl``."""
_LIST: Final = re.compile(
    rf"[\[(]?{_M}(?:[,;/|\\~#+\-]+{_M})+[\])]?|\[{_M}(?:[\s,;\\]+{_M})+\]|{_M}(?:[\s,;/|\\~#+\-\[\]]+{_M}){{2,}}"
)
"""Values in a row: two where no blank or a bracket holds them together, three otherwise."""
_OBJECT: Final = re.compile(rf"(?<![\w.$])[\w.$]++\{{(?>[^{{}}\s:=]*?{_M})[^{{}}]*+\}}")
"""An object as many languages print it, its address first: ``Window{1f9 token=…}``."""
_HAS_MARK: Final = re.compile(_M)
_NOTHING: Final = re.compile(r"(?<=\s)\(\s*\)")
"""Parentheses around a value that is empty this time."""


def digits_alike(text: str) -> str:
    """Give what is looked at of a text, all digits alike: texts with the same one have the same template."""
    text = without_escapes(text[: ESCAPED_TIMES_MAX * TEXT_CHARS_MAX])[:TEXT_CHARS_MAX]
    if text.isascii():  # bytes are translated in a fraction of the time
        return text.encode().translate(_ASCII_ALIKE).decode()
    return text.translate(_ALIKE)


def template_of(text: str) -> str:
    """Give the template that a text has by itself, in at most `TEMPLATE_CHARS_MAX` characters.

    Only the first `TEXT_CHARS_MAX` characters are looked at; runs of white space become one blank. The templates of
    short texts are remembered: to make one takes 40 to 130 µs, and the same texts come again and again.
    """
    text = digits_alike(text)
    return _remembered(text) if len(text) <= REMEMBERED_CHARS_MAX else _template(text)


def _template(text: str) -> str:
    return write_template(marked(text))


_remembered: Final = lru_cache(REMEMBERED_MAX)(_template)


def write_template(marked_text: str) -> str:
    """Write marks as ``<num>``, ``<path>`` and so on."""
    return _WRITTEN.sub(r"<\\\1\2>", marked_text).translate(_SHOWN)


def read_template(template: str) -> str:
    """Read what `write_template` wrote: give a text with marks."""
    return _WRITTEN.sub(lambda found: f"<{found[1][1:]}{found[2]}>" if found[1] else _MARK_OF[found[2]], template)


def text_like(template: str) -> str:
    """Give a text that an older algorithm's template may stand for, to be masked as we would."""
    return _WRITTEN.sub(lambda found: found[0] if found[1] else _SAMPLES.get(found[2], found[0]), template)


def marked(text: str) -> str:
    """Give a text with a mark in each place that varies."""
    joined = " ".join(_OCTAL_QUOTE.sub("'", digits_alike(text)).split())
    return _simplified(_masked(joined))[:MARKED_CHARS_MAX].rstrip()


def _masked(text: str) -> str:
    return _VARYING.sub(_mark, text)


def _mark(found: re.Match[str]) -> str:
    """Give what stands in the template for one find.

    The depth is bounded: inside a quoted text there is one kind of quote less.
    """
    kind = found.lastgroup  # the alternative itself: it closes last
    if kind == "said":
        return f'"{found["KEY"]}"{found["COLON"]}"{_masked(found["PROSE"])}"'
    if kind == "key":
        return f'"{_masked(found["key"][1:-1])}"'
    if kind == "request":
        return f'"{found["METHOD"]} {_MARK_OF["url"]}"'
    if kind == "status":
        return f"{found['S']}{_MARK_OF['num']}{found['REASON']}{found['S']}"
    assert kind is not None
    return _MARK_OF[kind]


def _simplified(text: str) -> str:
    """Take ids, objects and lists for one value each, and repetitions for one."""
    text = _NOTHING.sub(f"({ANY})", text)
    if not _HAS_MARK.search(text):
        return text
    text = " ".join([_one_word(word) if _HAS_MARK.search(word) else word for word in text.split(" ")])
    for _ in range(NESTING_MAX if "{" in text else 0):
        text = _OBJECT.sub(ANY, text)
    text = " ".join(_without_repetition(text.split(" ")))
    return " ".join(_without_repetition(_LIST.sub(ANY, text).split(" ")))


def _one_word(word: str) -> str:
    return _HOST_NAME.sub(ANY, _ID.sub(ANY, word))


def _without_repetition(words: list[str]) -> list[str]:
    """Leave out a group of words that says the same as the group before it and holds a mask."""
    kept: list[str] = []
    bare: list[str] = []  # without the commas between groups
    for word in words:
        kept.append(word)
        bare.append(word.rstrip(",;"))
        for size in range(1, min(REPEATED_WORDS_MAX, len(bare) // 2) + 1):
            if bare[-1] == bare[-1 - size] and _is_repeated(bare, size):
                del kept[-2 * size : -size], bare[-size:]
                break
    return kept


def _is_repeated(words: list[str], size: int) -> bool:
    last = words[-size:]
    return last == words[-2 * size : -size] and any(map(_HAS_MARK.search, last))
