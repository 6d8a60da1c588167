"""Bodies that Hypothesis makes: objects over the known fields, right and wrong; other values; damaged JSON."""

import json
from typing import Any, Final

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.parity.bodies import FIELDS_AS_GIVEN, Body


def made(count: int, *, seed: int) -> list[Body]:
    """Draw ``count`` bodies; the same ones for the same seed and version of Hypothesis."""
    drawn: list[Body] = []
    if count < 1:
        return drawn

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_bodies)
    def draw(content: bytes) -> None:
        drawn.append(Body(f"made #{len(drawn) + 1} of seed {seed}", content))

    draw()
    return drawn


_TEXT: Final = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "?", "mcp", "Toledo", "👍🏽", "12", "a\nb", "\u2028", "true", "2026-04-22T10:11:12.131Z"]),
)
_INTEGERS: Final = st.one_of(st.integers(-5, 5_000), st.integers(), st.sampled_from([2**53, 2**63, -(2**63), 2**64]))
_NUMBERS: Final = st.one_of(_INTEGERS, st.floats(allow_nan=False, allow_infinity=False))
_NUMERIC_TEXT: Final = st.one_of(
    _NUMBERS.map(str), st.from_regex(r"\A[ ]?[+-]?[0-9]{0,4}\.?[0-9]{0,3}(e[+-]?[0-9]{1,2})?[ ]?\Z")
)
_ANYTHING: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_SOURCES: Final = st.one_of(st.sampled_from(["mcp", "scenario", "auditor", "bot"]), _TEXT)

_RIGHT: Final[dict[str, st.SearchStrategy[Any]]] = {
    **dict.fromkeys(("timestamp", "endpoint", "input_summary", "output_summary", "one_liner", "error"), _TEXT),
    **dict.fromkeys(FIELDS_AS_GIVEN, _TEXT),
    **dict.fromkeys(("duration_ms", "audit_duration_ms"), st.one_of(_NUMBERS, _NUMBERS, _NUMERIC_TEXT)),
    **dict.fromkeys(("success", "ok"), st.booleans()),
    **dict.fromkeys(("rescue_attempted", "rescue_succeeded"), st.one_of(st.booleans(), _ANYTHING)),
    "count": st.one_of(_NUMBERS, _NUMBERS, _TEXT),
    "source": _SOURCES,
}


def _events(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def _with_others(events: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    others = st.dictionaries(_TEXT.filter(lambda name: name not in {*_RIGHT, "id", "attrs"}), _ANYTHING, max_size=4)
    return st.builds(lambda event, other: {**other, **event}, events, others)


_GOOD: Final = _events({name: st.one_of(value, value, value, st.none()) for name, value in _RIGHT.items()})
_LIKELY_GOOD: Final = _with_others(_GOOD)
_LIKELY_BAD: Final = st.builds(
    lambda event, name, value: {**event, name: value}, _GOOD, st.sampled_from(sorted(_RIGHT)), _ANYTHING
)


def _encoded(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    def encode(value: Any, *, ascii_only: bool, blanks: bool) -> bytes:
        separators = None if blanks else (",", ":")
        return json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()

    return st.builds(encode, values, ascii_only=st.booleans(), blanks=st.booleans())


def _damaged(texts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Replace a few bytes: most of the results are no JSON, and both programs have to see that."""
    scraps = st.one_of(st.sampled_from([b"", *(bytes([c]) for c in b'{}[]",:\\0-9eE.+tn \n')]), st.binary(max_size=2))

    def damage(text: bytes, at: int, removed: int, scrap: bytes) -> bytes:
        start = at % (len(text) + 1)
        return text[:start] + scrap + text[start + removed :]

    return st.builds(damage, texts, st.integers(0, 10_000), st.integers(0, 2), scraps)


_bodies: Final = st.one_of(
    _encoded(_GOOD),
    _encoded(_LIKELY_GOOD),
    _encoded(_LIKELY_GOOD),
    _encoded(_LIKELY_BAD),
    _encoded(_ANYTHING),
    _damaged(_encoded(_GOOD)),
)
