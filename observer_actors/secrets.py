"""Secrets in what callers send: found, and replaced by a marker before anything else sees them. Pure.

A body is searched before it is decoded, in one pass of an automaton (RE2) that holds every rule: about half a
microsecond an event, and one to three more for one whose JSON has escapes. Only a body in which something may be is
decoded, and its texts are looked at one by one, names included, at any depth. RE2 takes time in proportion to the text,
whatever the rules are: an operator's rule cannot stall the daemon.

The rules know what a key *looks like* (the prefixes that providers give theirs), or what stands before it (a name such
as `password`, and `:` or `=`). They do not guess by entropy: hashes, ids and base64 are what agents' texts are full of.

One file, though a long one: the most of it is the table of the rules and what they are made of, and no rule is
understood without the search that it is for.
"""

from __future__ import annotations

import codecs
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import re2
from msgspec import Struct

from observer_actors.errors import EventInvalid, EventTooComplex, ObserverError


class RuleInvalid(ObserverError):
    """A rule of the operator that is no expression RE2 can take."""

    title = "invalid rule"
    exit_code = 78


class _Found(Struct, frozen=True):
    """What a rule has found: all that matched, the secret in it, and what stands on both sides of that."""

    match: str
    value: str
    before: str
    behind: str
    name: str
    """What stands before the secret within the match, in lower case."""


def _always(_found: _Found) -> bool:
    return True


class _Rule(Struct, frozen=True):
    """``pattern``: the secret is what its last group holds, or all of it, where ``accepts`` does."""

    kind: str
    pattern: str
    accepts: Callable[[_Found], bool] = _always
    begins: str = ""
    """A cheaper pattern, found within all that matches: a body is searched for it first; "" for the pattern itself."""


_LONG: Final = re.compile(r"(?<!\\x)\{(?:[5-9]|\d\d+)(?:,\d*)?\}.*?(?=\||\)$)")


def _key(pattern: str, accepts: Callable[[_Found], bool] = _always, *, kind: str = "api_key") -> _Rule:
    """Make the rule of keys that are known by how they begin, each alternative of the last group for itself.

    A body is searched for four characters of a key. To count to forty takes forty states, times those of all other
    keys that the same text might be: an automaton of so many is built anew over and over.
    """
    return _Rule(kind, pattern, accepts, _LONG.sub("{4}", pattern))


def _has_digit(found: _Found) -> bool:
    return any(letter.isdigit() for letter in found.value)


_KEYS_RUN: Final = re.compile(r"[A-Za-z0-9]{16}")


def _is_key(found: _Found) -> bool:
    """Tell a key from a name in kebab case: 16 characters without a hyphen, or digits and letters of both cases."""
    value = found.value
    mixed = _has_digit(found) and value != value.lower() and value != value.upper()
    return mixed or _KEYS_RUN.search(value) is not None


def _is_mixed(found: _Found) -> bool:
    """Tell a key behind a short beginning from a name and from a hash: digits and letters of both cases."""
    value = found.value[BEGINNING_CHARS:]
    return _has_digit(found) and value != value.lower() and value != value.upper()


_CAMEL: Final = re.compile(r"[a-z]*(?:[A-Z]+[a-z]{2,})+[A-Z]*")


def _is_bearer(found: _Found) -> bool:
    """Tell a token from the words behind "bearer": it has a digit, or many letters in no order of a name's."""
    value = found.value
    if _has_digit(found):
        return True
    capitals = sum(letter.isupper() for letter in value)
    is_name = _CAMEL.fullmatch(value) is not None and capitals <= len(value) // 3
    return value.isalpha() and len(value) >= BEARER_LETTERS_MIN and 0 < capitals < len(value) and not is_name


def _is_basic(found: _Found) -> bool:
    """Read it, as far as it goes: a user, a colon, and a password."""
    given = found.value.rstrip("=")
    try:
        read = b64decode(given[: len(given) // 4 * 4]).decode()
    except ValueError:
        return False
    return ":" in read and read.isprintable()


def _is_pem(found: _Found) -> bool:
    """Read how it begins: a certificate is no secret."""
    begins = found.value.rstrip("=")[:64]
    return b"PRIVATE" in b64decode(begins[: len(begins) // 4 * 4], altchars="-_")


def _is_cookie(found: _Found) -> bool:
    values = (pair.partition("=")[2].strip() for pair in found.value.split(";"))
    return len(found.value) >= COOKIE_CHARS_MIN and not all(map(_is_stand_in, values))


def _is_authorization(found: _Found) -> bool:
    """Tell what is sent from what is said of it: `Authorization: required`, `authorization=self.authorization`."""
    words = {found.value.rstrip(".!").lower()} | (set() if _has_digit(found) else set(found.name.split()[-1:]))
    return _is_shown(found) and not _is_code(found) and not words & _SAID_OF_HEADERS


def _is_shown(found: _Found) -> bool:
    """Tell what stands there itself from a mask, a placeholder and the name of a variable."""
    return not _is_stand_in(found.value)


def _is_no_port(found: _Found) -> bool:
    return not found.value.replace("%", "/").partition("/")[0].isdigit()


_GAPS: Final = re.compile(r"\D+")


def _is_card(found: _Found) -> bool:
    """Check the last digit as ISO/IEC 7812-1 has it; and that numbers in columns or lines are four, and no more."""
    text = found.value.replace("%20", " ")
    gaps = set(_GAPS.findall(text))
    if len(gaps) > 1:
        return False
    if gaps & {"\t", "\n", "\r\n", "  ", "+"}:
        gap = gaps.pop()
        before, behind = found.before.removesuffix(gap), found.behind.removeprefix(gap)
        if (before != found.before and before[-1:].isdigit()) or (behind != found.behind and behind[:1].isdigit()):
            return False
    digits = [int(digit) for digit in text if digit.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]  # noqa: PLR2004 - above 4 it has two digits
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


VALUE_CHARS_MIN: Final = 3
PROSE_CHARS_MAX: Final = 16
AROUND_CHARS: Final = 40
BEARER_LETTERS_MIN: Final = 20
BEGINNING_CHARS: Final = 4
COOKIE_CHARS_MIN: Final = 8
ARGUMENT_CHARS_MIN: Final = 6
_WORDS: Final = frozenset({"true", "false", "null", "none", "yes", "no", "accepted", "rejected", "required", "missing"})
_SAID_OF_PASSWORDS: Final = frozenset(
    """
    blank changed denied disabled empty enabled expired failed hidden incorrect invalid mismatch mismatched ok optional
    prompted redacted refused reset short str string text unchanged unknown unset updated weak wrong
    """.split()  # noqa: SIM905 - a list of quoted words is harder to read
)
_SAID_OF_HEADERS: Final = frozenset(
    "denied disabled expired failed forbidden invalid malformed missing optional rejected required unauthorized".split()  # noqa: SIM905
)
_SENTENCE: Final = re.compile(r"(?i)\b(?:is|are|be|must|should|has|have|does|do|did|was) \w")
_ALGORITHM: Final = re.compile(
    r"(?i)(?:[HREP]S|ES)(?:256|384|512)|ed25519|argon2(?:id|[id])?|(?:pbkdf2[_-])?(?:hmac[_-])?sha[_-]?(?:1|224|256|384|512)"
    r"|pbkdf2|md5|rsa[_-]?(?:2048|3072|4096)|aes[_-]?(?:128|192|256)(?:[_-](?:gcm|cbc|ctr))?"
)
"""Of keys and hashes; those without a digit are words anyway."""
_SAYS: Final = re.compile(r":\s|token=")
_OTHER_KEY: Final = re.compile("(?:ion|ing|hmac|shared)[ _-]?key| key")
"""Code has many of those, and prose too."""
_PLAIN: Final = str.maketrans({"*": None, "`": None, "\xa0": " ", "\u2007": " ", "\u202f": " "})
_GOES_ON: Final = re.compile(r"[ \t]+(?![\w.-]+\s*[:=])\w")
"""Another word, which names no value of its own: prose."""
_COUNT: Final = re.compile(r"\d[\d_.,/]*[kKmM]?")
_MARKED: Final = r"\[redacted:\w+\]"
"""What was taken out already: of a text that comes back, or by another rule."""
_MARKER: Final = re.compile(_MARKED)
_VARIABLE: Final = re.compile(rf"\$\{{?[A-Z_][A-Z0-9_]*\}}?|<[\w -]*>|\{{+[\w. ]*\}}+|%\(\w+\)s|arn:\S*|{_MARKED}")
_MASKED: Final = re.compile(
    r"(?i)[*\u2022\u25cf._\u2026-]{3,}|x{3,}|(?:sk-(?:[a-z]+-)?\w{0,8}|\w{0,4})[*\u2022]{4,}\w{0,4}|sk-(?:[a-z]+-)?\w{0,4}(?:\.{3}|\u2026)\w{0,4}"
    r"|[*<\[({]*(?:redacted|filtered|masked|sanitized|scrubbed)[*>\])}]*|[*<\[({]+(?:hidden|removed|omitted|secret)[*>\])}]+"
    r"|(?:<|(?:insert|enter|put|add|replace[_-]with)[_-])?your(?:[_-][a-z]+)*[_-](?:key|token|password|secret|here)>?"
)
"""What others hid, but for four characters at each end (eight behind `sk-`); and what manuals write for a key."""
_PLACE: Final = re.compile(r"https?://.*|~?(?:/[\w.-]+){2,}")
_FILE: Final = re.compile(r"[\w.~-]*(?:/[\w.-]+)+\.(?:json|pem|key|crt|ya?ml|toml|txt|env|ini)")


def _is_quoted(found: _Found) -> bool:
    """Take all that is quoted; but a quote may be the end of a prompt, too: `"Password: ", stream`."""
    is_said = found.name.rstrip("\"'\\").endswith("[") and _is_said_of_passwords(found.value)
    return not found.value.startswith(_BEHIND_A_QUOTE) and not is_said and _is_value(found)


def _opens_no_door(found: _Found) -> bool:
    """Tell a parser's tokens, those that are counted, and where a listing goes on."""
    is_short = len(found.value) < PROSE_CHARS_MAX and (found.name.startswith("unexpected") or not _has_digit(found))
    names_none = _NAMES_NONE.search(found.before)
    if names_none is not None and (names_none.start() > 0 or len(found.before) < AROUND_CHARS):
        return True  # the name is whole: more may stand before one where we begin to look
    return is_short and _PARSERS.search(found.before) is not None


def _is_value(found: _Found) -> bool:
    value = found.value
    if len(value) < VALUE_CHARS_MIN or value.startswith((*_TAKEN_OUT, "```")):
        return False
    if "token" in found.name and _opens_no_door(found):
        return False
    if ("==" in found.name or "->" in found.name) and not (_SURELY.search(found.name) and _has_digit(found)):
        return False  # code compares, and prose points, at anything
    return _may_be_secret(found.name, value)


def _is_braced(found: _Found) -> bool:
    """Tell `PWD={ab12;c}` from `password={password}` and `{width:10}`, which stand for something else."""
    return _has_digit(found) and ":" not in found.value and _is_value(found)


def _is_said_of_passwords(elements: str) -> bool:
    """Tell `["is too short", "can't be blank"]` from passwords, which may have blanks too: each is a sentence."""
    return all(_SENTENCE.search(element) for element in elements.split(","))


def _is_list(found: _Found) -> bool:
    if _is_said_of_passwords(found.value):
        return False
    return _SURELY.search(found.name) is not None and not found.value.startswith(_TAKEN_OUT)


def _is_list_below(found: _Found) -> bool:
    """Tell passwords from what is said of them, and from the names of secrets."""
    is_prose = any(" " in line.strip(" \t-") for line in found.value.splitlines())
    return "secret" not in found.name and _is_list(found) and _has_digit(found) and not is_prose


def _is_command(found: _Found) -> bool:
    """Tell SQL from "the row identified by "name"": there it is written in capitals, or the password has a digit."""
    return '"' not in found.name or "IDENTIFIED" in found.match or _has_digit(found)


def _is_no_prose(found: _Found) -> bool:
    """Tell `password=hunter2` from "password: must be longer", "tokens: 512" and `PWD=/home/me`."""
    name, value = found.name.translate(_PLAIN), found.value
    if (
        not _is_value(found)
        or _is_code(found)
        or name.startswith("unexpected")
        or ("(" in value and not _has_digit(found))
    ):
        return False
    word = value.strip(".!?").lower()
    is_quoted = ('"' in name or "'" in name) and "`" not in found.name
    may_be_prose = _SAYS.search(name) is not None and not is_quoted
    if _OTHER_KEY.search(name):
        return _has_digit(found)
    if not may_be_prose or not word.isalpha() or len(value) >= PROSE_CHARS_MAX:
        return True
    is_password = "pass" in name or "pwd" in name
    return is_password and word not in _SAID_OF_PASSWORDS and not _GOES_ON.match(found.behind)


def _is_code(found: _Found) -> bool:
    """Tell `token = self.client.login(user)` and `api_key=settings.api_key` from a secret: a call, or another's name.

    A password may be words with a point or a bracket, too. What is not called must end with a name that secrets have,
    or begin with what settings are in; and nothing has a digit.
    """
    value, behind = found.value, found.behind
    if value in ("await", "new", "lambda:"):
        return _CALLED_NEXT.match(behind) is not None
    if value.startswith("$") and value.endswith("-") and behind.startswith(">"):  # what PHP calls is cut there
        return _PATH.fullmatch(value[:-1]) is not None
    path = _PATH.fullmatch(value.rstrip(":?"))
    if path and (_SET_ON.search(found.before) or _RETURNS.search(found.before)):
        return True
    is_password = _OF_PASSWORDS.search(found.name) is not None
    if _A_NAME.fullmatch(value) and (value[0] in "$:@" or not (is_password or _OF_PASSWORDS.search(value))):
        return True
    if path is None:
        return False
    is_taken = _TAKEN.match(behind) is not None
    if path["rest"]:
        last = _STEPS.split(value)[-1].strip("_")
        is_known = _A_NAME.fullmatch(last) is not None or path["root"].strip("_") in _ROOTS
        is_known = is_known or ("token" in path["root"].lower() and not is_password)
        return is_known or is_taken or _CALLED.match(behind) is not None
    is_camel = _CAMEL.fullmatch(value) is not None and (value[0].islower() or not (is_password or value.istitle()))
    is_function = "_" in value or value in _BUILT_IN or is_camel
    return (is_function and _CALLED.match(behind) is not None) or is_taken


def _is_argument(found: _Found) -> bool:
    """Tell `--token ab12cd` from "use --token to log in": where no command says so, a secret has a digit."""
    name, value = found.name, found.value
    if not _may_be_secret(name, value) or "--no-" in name:
        return False
    return "curl" in name or "sshpass" in name or (len(value) >= ARGUMENT_CHARS_MIN and _has_digit(found))


def _is_stand_in(value: str) -> bool:
    return _VARIABLE.fullmatch(value) is not None or _MASKED.fullmatch(value.rstrip(".,") or value) is not None


def _may_be_secret(name: str, value: str) -> bool:
    """Say whether a value under a telling name is one that must be hidden: no word, no count, no path, no variable."""
    name = name.lower()
    if value.lower() in _WORDS or (_COUNT.fullmatch(value) and "pass" not in name and "pwd" not in name):
        return False
    if ("key" in name or "hash" in name) and _ALGORITHM.fullmatch(value.rstrip(".")):
        return False
    if (" key" in name or "`" in name) and _PLACE.fullmatch(value):
        return False
    if _is_stand_in(value):
        return False
    if _FILE.fullmatch(value) or ("pwd" in name and value.startswith(("/", "~"))):
        return False
    return "pass" in name or "pwd" in name or "secret" in name or " " not in value


_ESCAPES: Final = r"\\[bfnrt]|\\u[0-9a-fA-F]{4}|%[0-9a-fA-F]{2}"
_EDGE: Final = rf"(?:\b|{_ESCAPES})"
"""Where a word begins, also behind an escape: of JSON that stands in a text, or of a URL."""
_NO_FRACTION: Final = rf"(?:^\.?|[^\w.]|\D\.|{_ESCAPES})"
"""The same, but not behind a number's point: the digits of a fraction are of any kind."""
_JOINED: Final = rf"(?:\b|[_\d]|{_ESCAPES})"
"""For what is taken for nothing else: also where it is joined to a name or a number."""
_ALONE: Final = rf"(?:^|[^\w-]|{_ESCAPES})"
"""For what may be the end of an id or of a name with hyphens."""
_PROVIDERS: Final = "openai|anthropic|gemini|mistral|groq|stripe"
_NAMES: Final = (
    "password(?:[_-]?(?:hash|text|plain|primary|secondary))?|passwd|passphrase|passcode|pwd|secret[ _-]?key|secret"
    f"|api[ _-]?key(?:[_-](?:{_PROVIDERS}))?|private[ _-]?key(?:[_-]pem)?|token|credential"
    f"|(?:access|auth|account|encryption|signing|hmac|pre[ _-]?shared|{_PROVIDERS})[ _-]?key"
)
_ENDS: Final = r"s?(?:[_-]?(?:confirm(?:ation)?|value|prod|dev|test|old|new|again|\d{1,3}))?"
"""What may follow such a name and leave it one."""
_WORD: Final = (
    r"_*(?:[a-z]+(?:_[a-z]+)*|[A-Z]+(?:_[A-Z]+)*"
    r"|[a-zA-Z][a-z]*(?:[A-Z]{1,3}[a-z]+)+|[A-Z][a-z]+|(?:b(?:ase)?64|v\d)(?:_?[a-z]+)?)_*"
)
_NAMES_NONE: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?:(?:(?:[Nn]ew|[Ss]tart|[Pp]rev(?:ious)?|[Nn]ext)[_-]?)*(?:[Nn]ext|[Pp]age|[Cc]ontinuation)[_-]?[Tt]oken"
    r"|[Nn]ext[_-]?[Ss]ync[_-]?[Tt]oken|(?i:(?:max|min|num)[_-]?(?:new[_-]?|(?:in|out)put[_-]?|completion[_-]?)?tokens"
    r"|(?:prompt|completion|total|(?:in|out)put|cached|reasoning)[_-]?tokens)|(?:eos|bos|pad|unk|cls|sep|mask|stop)_token)"
    r"[\"'\\*`]*\s*[:=>]*[\s\"'\\`*(]*$"
)
"""Where a listing goes on, what a model may spend, what a tokenizer puts between texts; but not `FB_PAGE_TOKEN`."""
_PARSERS: Final = re.compile(
    r"(?i)\b(?:unexpected|expected|unrecogni[sz]ed|illegal|stray|near) +token[:=]?\s*[\\\"'`]*$"
)
_STEP: Final = r"(?:\??\.|::)"
_STEPS: Final = re.compile(_STEP)
_PATH: Final = re.compile(rf"\$?(?P<root>{_WORD})(?P<rest>(?:{_STEP}{_WORD})*)")
"""`self.client.login`, `process.env.TOKEN`, `std::env::var`: words of code, without a digit."""
_ROOTS: Final = frozenset(
    "args cfg cls conf config ctx env opts options os params process props req request self settings this".split()  # noqa: SIM905
)
_BUILT_IN: Final = frozenset(
    "SecretBytes SecretStr bytes env getattr getpass hash input int len list max min next open str".split()  # noqa: SIM905
)
_CALLED: Final = re.compile(r"\((?:\)|[frbu]?[\"']|[*&]*[A-Za-z_]+(?:\d?\(|[),.=:\[ ])|\d+[),]|[{\[])")
_CALLED_NEXT: Final = re.compile(r" +\(?[\w.]+\(")
_TAKEN: Final = re.compile(r"\[(?:f?[\"']|:[a-z_]+\])")
_SET_ON: Final = re.compile(r"\b(?:self|this|cls)\.\w+ *= *$")
_RETURNS: Final = re.compile(r"\) -> \w+:[ \t]*\r?\n\s*$")
_OF_PASSWORDS: Final = re.compile("pass|pwd|secret", re.IGNORECASE)
_A_NAME: Final = re.compile(rf"(?i:[$:@]?(?:[a-z]+_)*(?:{_NAMES}|creds)s?)|[a-z]+(?:Token|Key|Secret|Password)s?")
_NAMED_SO: Final = rf"(?i)(?:unexpected\s+)?(?:{_NAMES}|[a-z]_pass){_ENDS}"
_S: Final = r"[\s\x{a0}\x{2007}\x{202f}]*"
_IS: Final = (
    rf"{_NAMED_SO}(?:[\"'\\]*{_S}|[\"'\\*`_]*[ \t]*)(?:=>|:=|===?|->|[:=>])(?:\*\*?|__)?{_S}"
    rf"(?:[|>][+-]?[ \t]*(?:\n|\\+n)\s*)?(?:[(\[]*|\{{[\"'\\]*value[\"'\\]*{_S}:{_S})"
)
"""In JSON, YAML, Markdown, code and prose; a blank may be one that does not break a line."""
_BLANK: Final = r"(?:\s|\\[nrt]|%20)"
_UUID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PEM_BEGINS: Final = r"-{4,5} ?BEGIN(?:[A-Z0-9 +]|%20)*PRIVATE(?:[ +]|%20)KEY(?:(?:[ +]|%20)BLOCK)? ?-{4,5}"
_PEM_ENDS: Final = r"-{4,5} ?END(?:[A-Z0-9 +]|%20)*KEY(?:(?:[ +]|%20)BLOCK)? ?-{4,5}"
_PEM_LINES: Final = (
    r"(?:(?:\s|\\+[nr])*[A-Z][A-Za-z-]+: [^\n\\]*(?:\n|\\+n))*"
    r"(?:(?:\s|\\+[nr]|[\"',])*[A-Za-z0-9+/=%]{16,})+(?:(?:\n|\\+n)[A-Za-z0-9+/=]+)?"
)
"""Without an end: headers, long words of base64, and a short one in the next line."""
_KTY: Final = r"[\"']kty[\"'\\]"
_PRIVATE_MEMBER: Final = r"[\"'](?:d|k)[\"'\\]+\s*:\s*[\"'\\]+[A-Za-z0-9_-]{20}"
"""Of a JSON Web Key (RFC 7518, 6): its private exponent or value."""
_PAIR: Final = r"[^\s\"'\\;=]+=[^\s\"'\\;]*"
_CARD: Final = r"4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|6011|64[4-9]\d|65\d{2}|62\d{2}|35\d{2}"
_GAP: Final = r"(?:[ +\t\n\x{a0}\x{2007}\x{2009}\x{2011}\x{2013}\x{202f}]|  |\r\n|%20)?"
_RULES: Final = (
    _Rule(
        "private_key",
        rf"(?s){_PEM_BEGINS}(?:[^-]|-{{1,3}}[^-])*{_PEM_ENDS}|(?:{_PEM_BEGINS}|Private-Lines: \d+){_PEM_LINES}",
    ),
    _key(_EDGE + r"(LS0tLS1CRUdJTi[A-Za-z0-9+/_-]{20,}={0,2})", _is_pem, kind="private_key"),
    _Rule(
        "private_key",
        rf"\{{([^{{}}]*{_KTY}[^{{}}]*{_PRIVATE_MEMBER}[^{{}}]*|[^{{}}]*{_PRIVATE_MEMBER}[^{{}}]*{_KTY}[^{{}}]*)",
        begins=_KTY,
    ),
    _key(_JOINED + r"(eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,3})", kind="jwt"),
    _key(_JOINED + r"(sk-(?:proj|ant|or|svcacct|admin|None)-[A-Za-z0-9_-]{16,})", _is_key),
    _key(
        _JOINED + r"(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
        r"|gl(?:pat|dt|rt|ptt|ft|imt|cbt|oas|soat|ffct|agent)-[A-Za-z0-9_-]{16,}(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?"
        r"|A[KSB]IA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}|ABSK[A-Za-z0-9+/]{80,}={0,2})",
    ),
    _key(_EDGE + r"(sk-[A-Za-z0-9]{16,}[A-Za-z0-9_-]*)", _has_digit),
    _key(_EDGE + r"(sk-[A-Za-z0-9_-]{20,})", _is_mixed),
    _Rule(
        "api_key",
        _ALONE + r"(sess-[A-Za-z0-9]{32,}|pa-[A-Za-z0-9_-]{43,}|a[ks]-[A-Za-z0-9]{22}\b|BSA[A-Za-z0-9_-]{24,}"
        r"|EAAA[A-Za-z0-9_-]{60,}|EAA[MC][A-Za-z0-9]{100,}|AKCp[A-Za-z0-9]{69,}|cmVmdGtuOj[A-Za-z0-9]{54,}"
        r"|AQVN[A-Za-z0-9_-]{35,}|(?:cio[A-Za-z0-9]{32}|secret-[A-Za-z0-9]{43}|ico-[A-Za-z0-9]{32}"
        r"|[0-9a-f]{32}\.[A-Za-z0-9]{16})\b)",
        _is_mixed,
        begins=rf"{_ALONE}(?:sess-[A-Za-z0-9]{{6}}|pa-[A-Za-z0-9_-]{{12}}|a[ks]-[A-Za-z0-9]{{12}}|BSA[A-Za-z0-9_-]{{6}}"
        r"|EAA[AMC][A-Za-z0-9_-]{6}|AKCp[A-Za-z0-9]{4}|cmVmdGtuOj|cio[A-Za-z0-9]{12}|(?:secret|ico)-[A-Za-z0-9]{12}"
        r"|AQVN[A-Za-z0-9_-]{4})|[0-9a-f]{8}\.[A-Za-z0-9]{16}",
    ),
    _Rule(
        "api_key",
        _ALONE + rf"([0-9a-f]{{32}}-us\d{{1,2}}|[0-9a-f]{{32}}-[0-9a-f]{{8}}-[0-9a-f]{{8}}|[0-9a-f]{{36}}NRAL"
        rf"|(?:sdk|xa[ap]t|access-(?:production|sandbox))-{_UUID}|ak-{_UUID}-[A-Za-z0-9_-]{{20,}}"
        r"|LLM\|\d{10,}\|[A-Za-z0-9_-]{20,})(?:\b|_)",
        begins=r"[0-9a-f]{4}(?:-us\d|-[0-9a-f]{8}-[0-9a-f]{8}|NRAL)|(?:sdk|xa[ap]t|production|sandbox|ak)-[0-9a-f]{8}-"
        r"|LLM\|\d{4}",
    ),
    _key(
        _EDGE + r"([srp]k_(?:org_)?(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{16,}|ya29\.[A-Za-z0-9_-]{20,}"
        r"|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|pplx-[A-Za-z0-9]{40,}|hf_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{37}"
        r"|xox[abceoprs]-[A-Za-z0-9-]{10,}|xoxd-[A-Za-z0-9%+/=_-]{20,}|xapp-[A-Za-z0-9-]{10,}"
        r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|SK[0-9a-f]{32}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"
        r"|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|lin_api_[A-Za-z0-9]{40}"
        r"|ntn_[A-Za-z0-9]{40,}|PMAK-[A-Za-z0-9]{24}-[A-Za-z0-9]{34}|NRAK-[A-Z0-9]{27}|oa_[A-Za-z0-9_-]{43}"
        r"|do[por]_v1_[a-f0-9]{40,}|dapi[0-9a-f]{32}|dp\.[a-z]{2,5}\.[A-Za-z0-9]{40,}|hv[sbr]\.[A-Za-z0-9_-]{24,}"
        r"|GOCSPX-[A-Za-z0-9_-]{28}|AGE-SECRET-KEY-1[A-Z0-9]{58}|dckr_[po]at_[A-Za-z0-9_-]{20,}"
        r"|AT[AC]TT3x[A-Za-z0-9_=-]{20,}"
        r"|figd_[A-Za-z0-9_-]{20,}|gls[ao]_[A-Za-z0-9_]{20,}|sbp_[a-f0-9]{40}|xkeysib-[a-f0-9-]{40,}"
        r"|sq0[a-z]{3}-[A-Za-z0-9_-]{22,}"
        r"|pcsk_[A-Za-z0-9_]{20,}|lsv2_[a-z]{2}_[a-f0-9_]{32,}|tvly-[A-Za-z0-9-]{20,})",
    ),
    _key(
        _EDGE + r"(AQ\.Ab8[A-Za-z0-9_-]{30,}|1//0[A-Za-z0-9_-]{40,}|bedrock-api-key-[A-Za-z0-9+/=_-]{40,}"
        r"|nvapi-[A-Za-z0-9_-]{40,}|tgp_v1_[A-Za-z0-9_-]{40,}|csk-[a-z0-9]{40,}|fw_[A-Za-z0-9]{22,}"
        r"|jina_[A-Za-z0-9]{40,}"
        r"|sk-lf-[0-9a-f-]{36}|sk_[0-9a-f]{48}|e2b_[0-9a-f]{40}|fc-[0-9a-f]{32}|apify_api_[A-Za-z0-9]{36}"
        r"|api_org_[A-Za-z0-9]{30,}"
        r"|vc[kpiar]_[A-Za-z0-9]{24,}|sb_secret_[A-Za-z0-9_-]{20,}|napi_[a-z0-9]{40,}"
        r"|pscale_[a-z]{2,5}_[A-Za-z0-9_.-]{32,}"
        r"|lin_oauth_[a-f0-9]{40,}|secret_[A-Za-z0-9]{43}|ATBB[A-Za-z0-9]{32}|HRKU-[A-Za-z0-9_-]{36,}"
        r"|nfp_[A-Za-z0-9]{36,}"
        r"|rubygems_[a-f0-9]{48}|sntry[su]_[A-Za-z0-9+/=_-]{40,}|glc_eyJ[A-Za-z0-9+/=]{20,}|pul-[a-f0-9]{40}"
        r"|sgp_[a-f0-9_]{40,}"
        r"|CCIPAT_[A-Za-z0-9_]{40,}|phx_[A-Za-z0-9]{40,}|CFPAT-[A-Za-z0-9_-]{40,}"
        r"|dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}"
        r"|pat-(?:na|eu|ap)\d-[0-9a-f-]{36}|tskey-[a-z]{3,9}-[A-Za-z0-9-]{20,}|ops_eyJ[A-Za-z0-9_-]{50,}"
        r"|sq[apu]_[a-f0-9]{40}"
        r"|re_[A-Za-z0-9]{8}_[A-Za-z0-9]{24}|fm2_[A-Za-z0-9+/=_-]{40,}|fo1_[A-Za-z0-9_-]{40,}"
        r"|wk-1\.[0-9a-f.]{60,}|key_[a-f0-9]{64,}|cf(?:k|ut|at)_[A-Za-z0-9]{44,}"
        r"|esecret_[A-Za-z0-9]{20,}|llx-[A-Za-z0-9]{40,}|pylf_v\d_[a-z]{2}_[A-Za-z0-9]{40,}|hc[a-z]ik_[a-z0-9]{50,}"
        r"|rpa_[A-Za-z0-9]{40,}"
        r"|rnd_[A-Za-z0-9]{28,}|bk[a-z]{2}_[a-f0-9]{40}|snyk_[us]at\.[a-f0-9]{8}\.[A-Za-z0-9_-]{40,}"
        r"|os_v2_(?:app|org)_[a-z0-9]{80,}"
        r"|sl\.(?:u\.)?[A-Za-z0-9_-]{130,}|xau_[A-Za-z0-9]{32,}|mdb_sa_sk_[A-Za-z0-9_-]{32,}"
        r"|CCDB1_[A-Za-z0-9]{22}_[A-Za-z0-9]{40}"
        r"|crsr_[a-f0-9]{64}|polar_[a-z]{2,5}_[A-Za-z0-9]{32,}|pdl_(?:live|sdbx)_apikey_[A-Za-z0-9_]{40,}"
        r"|EZ[AT]K[A-Za-z0-9]{54,}"
        r"|FLWSECK(?:_TEST)?-[A-Za-z0-9]{12,}-X|shippo_(?:live|test)_[a-f0-9]{40}|aio_[A-Za-z0-9]{28,}"
        r"|duffel_(?:live|test)_[A-Za-z0-9_-]{40,}"
        r"|CLOJARS_[a-z0-9]{60}|rdme_[a-z0-9]{70}|pn[ub]_[A-Za-z0-9]{36,}|tfp_[A-Za-z0-9_.=-]{50,}"
        r"|[ps]at\.[A-Za-z0-9_-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}"
        r"|NRII-[A-Za-z0-9_-]{32,}|dtn_[a-f0-9]{64}|bb_(?:live|test)_[A-Za-z0-9_-]{20,}|phs_[A-Za-z0-9]{40,}"
        r"|flp_[A-Za-z0-9]{40,}"
        r"|v1\.0-[a-f0-9]{24}-[a-f0-9]{146}|sgp_[A-Za-z0-9]{64,}|fio-u-[A-Za-z0-9_-]{64,}|tk-us-[A-Za-z0-9_-]{48,}"
        r"|oy2[a-z0-9]{43,}"
        r"|wandb_v1_[A-Za-z0-9_]{40,}|GR1348941[A-Za-z0-9_-]{20}|LTAI[A-Za-z0-9]{20,})",
    ),
    _Rule(
        "api_key",
        _EDGE + r"((?:bot)?\d{8,10}:AA[A-Za-z0-9_-]{33}|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{40,}"
        r"|pat[A-Za-z0-9]{14}\.[a-f0-9]{64}|[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}"
        r"|[A-Za-z0-9]{40,}JQQJ99[A-Za-z0-9]{20,})",
        begins=r"\d:AA[A-Za-z0-9_-]{4}|\.atlasv1\.[A-Za-z0-9_-]{4}|pat[A-Za-z0-9]{14}\.[a-f0-9]{4}"
        r"|\dQ~[A-Za-z0-9_~.-]{4}|JQQJ99[A-Za-z0-9]{4}",
    ),
    _Rule("api_key", _ALONE + r"(key-[0-9a-f]{32})\b"),
    _key(r"hooks\.slack\.com\\?/(?:services|workflows|triggers)\\?/([A-Za-z0-9/\\]{20,})"),
    _key(r"IncomingWebhook\\?/([0-9a-f]{32})"),
    _key(r"discord(?:app)?\.com\\?/api\\?/webhooks\\?/\d+\\?/([A-Za-z0-9_-]{40,})"),
    _Rule("api_key", r"(?i)\bsig=([A-Za-z0-9+/%]{43,}(?:%3d|=))"),
    _Rule("bearer", rf"(?i){_EDGE}bearer{_BLANK}+([A-Za-z0-9._~+/=-]{{16,}})", _is_bearer),
    _Rule("bearer", rf"(?i){_EDGE}basic{_BLANK}+([A-Za-z0-9+/]{{8,}}={{0,2}})", _is_basic),
    _Rule(
        "bearer",
        r"(?i)authorization[\"'\\]*\s*[:=]\s*[\"'\\]*(?:[a-z]+\s+)?([A-Za-z0-9._~+/=-]{8,})",
        _is_authorization,
    ),
    _Rule("cookie", rf"(?i){_EDGE}set-cookie[\"'\\]*:\s*[\"'\\]*({_PAIR})", _is_cookie),
    _Rule("cookie", rf"(?i){_ALONE}cookie[\"'\\]*:\s*[\"'\\]*({_PAIR}(?:;\s*{_PAIR})*)", _is_cookie),
    _Rule("url_password", rf":\\?/\\?/(?:{_MARKED}|[^/\s:@\"'\\\[])*:([^/\s\"'\\]+)@", _is_shown),
    _Rule("url_password", r":\\?/\\?/([A-Za-z0-9_-]{20,})@", _has_digit),
    # With a slash in it, where what stands before is no port: a page's address may have an @ too.
    _Rule(
        "url_password",
        r"(?i)(?:postgres(?:ql)?|mysql|mariadb|mongodb|amqps?|rediss?)(?:\+\w+)?:\\?/\\?/"
        rf"(?:{_MARKED}|[^/\s:@\"'\\\[])*:([^\s\"'\\@]*/[^\s\"'\\@]*)@",
        _is_no_port,
    ),
    _Rule("url_password", r"(?i)%3a%2f%2f[^\s%/]*%3a([^\s/\"'\\&=]+?)%40", _is_no_port),
    _Rule("password", _IS + r"\{([^{}\"'\n]+)\}", _is_braced),
    _Rule("password", _NAMED_SO + r"[\"'\\]*\s*[:=]\s*\[\s*([\"'\\][^\]]*,[^\]]*)(?:\]|\z)", _is_list),
    _Rule("password", _NAMED_SO + r"[\"']?:[ \t]*\r?\n[ \t]*((?:- [^\n]+\n[ \t]*)*- [^\r\n]+)", _is_list_below),
    # What is quoted goes to its closing quote, to the end of the line, or to where the text was cut.
    _Rule("password", _IS + r'[bu]?"((?:[^"\\\n]|\\.)+)(?:"|\\?(?:\n|\z))', _is_quoted),
    _Rule("password", _IS + r"[bu]?'((?:[^'\\\n]|\\.)+)(?:'|\\?(?:\n|\z))", _is_quoted),
    _Rule("password", _IS + r"\\+[\"']([^\"'\\\n]+)", _is_quoted),
    _Rule("password", _IS + r"Secret(?:Str|Bytes)\(b?\\*[\"']([^\"'\\\n]+)", _is_quoted),
    _Rule(
        "password",
        # A bracket may be the secret's where too little stands before it to be a name of code.
        _IS + r"[\\(\[]*([^\s\"'\\,;&<>(){}\[\]]{1,2}\([^\s\"'\\,;&<>(){}\[\]]+|[^\s\"'\\,;&<>(){}\[\]]+)",
        _is_no_prose,
    ),
    # Behind those above: what was provided may be named once more.
    _Rule(
        "password",
        _NAMED_SO + r" (?:provided|supplied|received)[ \t]*[:=]>?\s*[\"'\\`]*([^\s\"'\\`,;:=&<>(){}\[\]]+)",
        _is_no_prose,
    ),
    _Rule(
        "password",
        _NAMED_SO + r"(?:%2[27])*%3[ad](?:%2[027]|\+)*((?:[\w.~!*+-]|%(?:[13-9a-f][0-9a-f]|2[13-589a-f]))+)",
        _is_no_prose,
    ),
    _Rule(
        "password",
        rf"(?i)(?:{_ALONE}--?(?:[\w-]*-)?(?:{_NAMES})(?:[ \t]+|[\"'],\s*)|\bcurl\s(?:[^\n]*?\s)??(?:-u|--user)[ =]*"
        rf"[\"'\\]*(?:{_MARKED}|[^\s:\"'\\\[])*:|\b(?:mysql|mariadb)\w*\s(?:[^\n]*?\s)??-p|\bsshpass\s+-p\s*)"
        r"[\"'\\]*([^\s\"'\\-][^\s\"'\\]*)",
        _is_argument,
    ),
    _Rule(
        "password",
        r"(?i)(?:identified\s+by|with\s+(?:encrypted\s+)?password)\s+\\*[\"']([^\"'\\]+)",
        _is_command,
    ),
    # Of other lengths, where a word says so, or they stand in groups: ids have as many digits.
    _Rule(
        "card",
        rf"(?i)(?:{_EDGE}|_|credit|debit)(?:card|visa|maestro|union ?pay)(?:[ _]?n(?:umber|um|o|r)\.?)?"
        r"[\"'\\]*\s*[:=#]?\s*[\"'\\]*([2-6]\d{11,18})(?:\b|_)",
        _is_card,
    ),
    _Rule(
        "card",
        rf"{_ALONE}((?:4\d|5[06-9]|6\d)\d{{2}}(?:(?:-\d{{4}}){{3}}-|(?: \d{{4}}){{3}} )\d{{1,3}})(?:\b|_)",
        _is_card,
    ),
    _Rule(
        "card",
        # A point stands between all of its groups: where there is but one, it is a number's.
        rf"(?:{_NO_FRACTION}|(?i:card))((?:{_CARD})(?:(?:{_GAP}\d{{4}}){{3}}|(?:\.\d{{4}}){{3}})"
        rf"|3[47]\d{{2}}(?:(?:-|{_GAP})\d{{6}}(?:-|{_GAP})\d{{5}}|\.\d{{6}}\.\d{{5}})"
        rf"|3(?:0[0-5]|[68]\d)\d(?:(?:-|{_GAP})\d{{6}}(?:-|{_GAP})\d{{4}}|\.\d{{6}}\.\d{{4}}))(?:\b|_)",
        _is_card,
    ),
    # With hyphens it may stand in no longer run of them: a UUID has such groups too.
    _Rule("card", rf"{_ALONE}((?:{_CARD})(?:-\d{{4}}){{3}})(?:\b|_)", _is_card),
)
_BY_NAME: Final = frozenset(
    number for number, rule in enumerate(_RULES) if rule.kind in {"password", "bearer", "cookie"}
)
"""Rules that go by what stands before a secret, and not by what it looks like."""
_LABEL: Final = re.compile(r"[A-Za-z_]+(?:[:/.-][A-Za-z_]+)+")
"""Words alone, without a digit: as endpoints are named."""
ENDPOINT: Final = "endpoint"

_NAMED: Final = rf"(?i).*(?:{_NAMES}|authorization|cookie|[_-]pass){_ENDS}|pass|bearer"
"""A field of this name is secret, unless its value is one that nobody would hide."""
_NAMED_IN_BODY: Final = rf"(?i)(?:{_NAMES}|authorization|cookie|[\"_-]pass|\"bearer){_ENDS}[\"\\]*\s*:"
_INVISIBLE: Final = "\u00ad\u200b\u2060\ufeff"
"""Without width: who reads a key does not see that it is in two."""
_BEHIND_A_QUOTE: Final = tuple(" ,;:.)}]")
_TAKEN_OUT: Final = ("[redacted", "redacted:")
_SURELY: Final = re.compile("pass|pwd|secret|api.?key", re.IGNORECASE)
"""`tokens` and `credentials` may be a list of anything."""
NAMED_KIND: Final = "password"
OPERATORS_NAME_CHARS_MAX: Final = 40
_BACKSLASH: Final = ord("\\")
PIECE_BYTES: Final = 1024 * 1024
OVERLAP_BYTES: Final = 16 * 1024
LOOKED_AT_MAX: Final = 2_000
"""Texts of an event that may hold a secret, and places in them that look like one: each takes some 20 us."""
SECRETS_MAX: Final = 1_000
"""In one event: nobody's; to take each out would hold up others."""


class Findings(Counter[str]):
    """Secrets of an event by kind, and how much of it had to be looked at."""

    looked_at = 0

    def look(self) -> None:
        """Note a text or a place in it.

        :raises EventTooComplex: there are too many.
        """
        self.looked_at += 1
        if self.looked_at > LOOKED_AT_MAX:
            raise EventTooComplex(f"holds more than {LOOKED_AT_MAX:,} places that look like a secret")


class Secrets:
    """Every rule, compiled.

    :param extra: the operator's own, as ``KIND=EXPRESSION`` in RE2's syntax; the last group is the secret, or all.
    :raises RuleInvalid: an expression that RE2 cannot take, or a kind that is no name.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        own = tuple(map(_operators, extra))
        rules = (*_RULES, *own)
        self.has_own_rules: Final = bool(own)
        """The operator's may reach to the beginning or the end of a body, which is lost where bodies are joined."""
        self._rules = [(rule, _compiled(rule)) for rule in rules]
        self._named = re2.compile(_NAMED)
        self._any = re2.Set.SearchSet(_options())
        for pattern in (*(rule.begins or rule.pattern for rule in rules), _NAMED_IN_BODY, f"[{_INVISIBLE}]"):
            self._any.Add(pattern)
        self._any.Compile()

    def may_be_in(self, body: bytes) -> bool:
        """Say whether a body has to be looked at. It need not be JSON, nor UTF-8."""
        if _BACKSLASH not in body:
            return bool(self._any.Match(body))
        if len(body) <= PIECE_BYTES:
            return bool(self._any.Match(_without_escapes(body)))
        return any(self._any.Match(_without_escapes(piece)) for piece in _pieces(body))

    def taken_out(self, event: Any, found: Findings) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Give a decoded event without its secrets, and count in ``found`` how many of each kind were in it.

        :raises EventTooComplex: there are more than `SECRETS_MAX`, or too many places that look like one.
        :raises EventInvalid: the secret is in the event's `id`: a marker in its place would make other events its
            duplicates.
        """
        cleaned = self._cleaned(event, found)
        if found and isinstance(event, dict) and cleaned.get("id") != event.get("id"):
            raise EventInvalid("holds a secret", field="id", hint="make ids of something that nobody must hide")
        return cleaned

    def text(self, text: str, found: Counter[str], *, is_endpoint: bool = False) -> str:
        """Give a text without its secrets, and count them.

        :param is_endpoint: ``token:refresh`` is the name of a tool, and no token.
        """
        findings = Findings()
        cleaned = self._text(text, findings, is_endpoint=is_endpoint)
        found.update(findings)
        return cleaned

    def places(self, kind: str, text: str) -> Iterator[tuple[int, int]]:
        """Give where secrets of a kind begin and end in a text, however many there are."""
        fitting = self._any.Match(text.encode("utf-8", "replace")) or ()
        for rule, expression in (self._rules[number] for number in sorted(fitting) if number < len(self._rules)):
            if rule.kind == kind:
                yield from _accepted(rule, expression, text)

    def _text(self, text: str, found: Findings, *, is_endpoint: bool = False) -> str:
        fitting: Sequence[int] = self._any.Match(text.encode("utf-8", "replace"))
        if is_endpoint and fitting and _LABEL.fullmatch(text):
            fitting = [number for number in fitting if number not in _BY_NAME]
        if not fitting:
            return text
        found.look()
        text = self._by_rules(text, fitting, found)
        if (bare := _bare(text)) == text:
            return text
        before = found.total()
        cleaned = self._by_rules(bare, self._any.Match(bare.encode("utf-8", "replace")) or (), found)
        return cleaned if found.total() > before else text

    def _by_rules(self, text: str, fitting: Iterable[int], found: Findings) -> str:
        for number in sorted(fitting):
            if number < len(self._rules):  # the others only say that the text has to be looked at
                text = _replaced(*self._rules[number], text, found)
        return text

    def _cleaned(self, value: Any, found: Findings) -> Any:  # noqa: ANN401 - whatever JSON holds
        match value:
            case str():
                return self._text(value, found)
            case list():
                return [self._cleaned(element, found) for element in value]
            case dict():
                return {self._text(name, found): self._field(name, held, found) for name, held in value.items()}
            case int() | float() if not isinstance(value, bool):
                whole = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
                return value if (shown := self._text(whole, found)) == whole else shown
        return value

    def _field(self, name: str, value: Any, found: Findings) -> Any:  # noqa: ANN401 - see above
        if name == ENDPOINT and isinstance(value, str):
            return self._text(value, found, is_endpoint=True)
        if value in ("", None) or isinstance(value, bool) or not self._names_a_secret(name):
            return self._cleaned(value, found)
        if isinstance(value, list | dict):
            return self._within(name, value, found) if _SURELY.search(name) else self._cleaned(value, found)
        if not _may_be_secret(name, str(value)):
            return self._cleaned(value, found)
        found[NAMED_KIND] += 1
        return _marker(NAMED_KIND)

    def _names_a_secret(self, name: str) -> bool:
        name = _bare(name)
        return self._named.fullmatch(name) is not None and _NAMES_NONE.search(name[-AROUND_CHARS:]) is None

    def _within(self, name: str, value: list[Any] | dict[str, Any], found: Findings) -> Any:  # noqa: ANN401 - see above
        """Take the secrets out of what stands under a telling name: each text in it is one."""
        if isinstance(value, list):
            return [self._field(name, element, found) for element in value]
        return {self._text(inner, found): self._field(name, held, found) for inner, held in value.items()}


def _bare(text: str) -> str:
    """Give a text without what cannot be seen. An event may be full of it: an expression would stop at each place."""
    for letter in "" if text.isascii() else _INVISIBLE:
        text = text.replace(letter, "")
    return text


@lru_cache(maxsize=8)
def compiled_secrets(extra: tuple[str, ...] = ()) -> Secrets:
    """Give the rules, and the operator's own beside them: compiled once, since that takes milliseconds."""
    return Secrets(extra)


_SLASH: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\/")


def _without_escapes(body: bytes) -> bytes:
    """Give JSON as its texts read: each stands in it whole. What is no JSON comes out as something.

    JSON's escapes are Python's but for that of the slash, and a decoder in C takes a tenth of what an expression does.
    """
    if b"\\/" in body:
        body = _SLASH.sub(rb"\1/", body)
    if not body.isascii():
        body = body.decode("utf-8", "replace").encode("raw_unicode_escape")
    try:
        text, _ = codecs.unicode_escape_decode(body, "replace")
    except DeprecationWarning:  # raised where warnings are errors: an escape that is none, and so no JSON
        return body
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a pair, or both
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _pieces(body: bytes) -> Iterable[bytes]:
    """Cut a large body, so that none of its copies is as large; each piece begins with the end of the one before."""
    for start in range(0, len(body), PIECE_BYTES - OVERLAP_BYTES):
        yield body[start : start + PIECE_BYTES]


def _operators(text: str) -> _Rule:
    kind, is_there, pattern = text.partition("=")
    if not is_there:
        raise RuleInvalid(f"{text[:OPERATORS_NAME_CHARS_MAX]!a}: wants KIND=EXPRESSION")
    return _Rule(kind.strip(), pattern)


def _compiled(rule: _Rule) -> Any:  # noqa: ANN401 - re2 has no types
    if not rule.kind.isidentifier() or len(rule.kind) > OPERATORS_NAME_CHARS_MAX:
        raise RuleInvalid(f"{rule.kind[:OPERATORS_NAME_CHARS_MAX]!a} is no name for a kind of secret")
    try:
        expression = re2.compile(rule.pattern, _options())
    except re2.error as error:
        why = b" ".join(error.args).decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise RuleInvalid(f"{rule.kind}: {why}", hint="RE2 has no look-around and no back-references") from error
    if expression.search("") is not None:
        raise RuleInvalid(f"{rule.kind}: it matches nothing at all, and so everywhere")
    return expression


def _options() -> Any:  # noqa: ANN401 - re2 has no types
    options = re2.Options()
    options.log_errors = False  # they are told as errors of ours
    return options


def _marker(kind: str) -> str:
    return f"[redacted:{kind}]"


def _accepted(
    rule: _Rule,
    expression: Any,  # noqa: ANN401 - see `_compiled`
    text: str,
    look: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, int]]:
    """Give where a rule's secrets are. ``look``: called at each place in question."""
    last = expression.groups
    for match in expression.finditer(text):
        look()
        whole = match.group(0)
        start, end = match.span(last if last and match.group(last) is not None else 0)
        value = text[start:end]
        before, behind = text[max(0, start - AROUND_CHARS) : start], text[end : end + AROUND_CHARS]
        found = _Found(whole, value, before, behind, whole[: whole.rfind(value)].lower())
        if not _MARKER.fullmatch(value) and rule.accepts(found):
            yield start, end


def _replaced(rule: _Rule, expression: Any, text: str, found: Findings) -> str:  # noqa: ANN401 - see `_compiled`
    parts: list[str] = []
    upto = 0
    for start, end in _accepted(rule, expression, text, found.look):
        if start < upto:
            continue
        parts += (text[upto:start], _marker(rule.kind))
        upto = end
        found[rule.kind] += 1
        if found.total() > SECRETS_MAX:
            raise EventTooComplex(f"holds more than {SECRETS_MAX:,} secrets")
    return "".join((*parts, text[upto:]))
