"""The few conversions of ECMAScript that callers of the seed rely on: truth, and numbers to and from text. Pure."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

_PLAIN_FROM: Final = 1e-6
_PLAIN_BELOW: Final = 1e21
"""Between these, Number::toString writes no exponent (ECMA-262, 6.1.6.1.20)."""
_WHOLE_MAX: Final = 2**53
"""Up to here a double holds every whole number."""
_DIGITS_MAX: Final = 1_000
_BLANKS: Final = (
    " \t\n\v\f\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f"
    "\u3000\ufeff"
)
"""White space and line ends of ECMAScript, which are not quite Python's."""
_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_RADIX: Final = re.compile(r"0([xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)", re.ASCII)

NUMERIC_PATTERN: Final = (
    r"^[ \t\n\r]*([+-]?([0-9]{1,200}\.?[0-9]{0,200}|\.[0-9]{1,200})([eE][+-]?[0-9]{1,2})?)?[ \t\n\r]*$"
)
"""What `read_number` takes, but for what nobody sends: other white space, other radices, large exponents."""


def truthy(value: object) -> bool:
    """Tell what JavaScript takes for true: also an empty list or object."""
    return not (value is None or value is False or value == "" or (isinstance(value, int | float) and value == 0))


def number_text(value: float) -> str:
    """Write a number as JavaScript does, but whole ones with all their digits; ``null`` for an infinite one."""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "null"  # what JSON.stringify makes of it
    if value.is_integer() and abs(value) < _PLAIN_BELOW:
        return str(int(value))
    if _PLAIN_FROM <= abs(value) < _PLAIN_BELOW:
        return format(Decimal(repr(value)), "f")
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa}e{int(exponent):+d}"


def read_number(text: str) -> int | float | None:
    """Read a text as ``Number()`` does, an empty one as 0; None when it is no number or not a finite one."""
    digits = text.strip(_BLANKS)
    if not digits:
        return 0
    if len(digits) > _DIGITS_MAX:
        return None
    if _RADIX.fullmatch(digits):
        return int(digits, 0)
    if not _DECIMAL.fullmatch(digits):
        return None
    value = float(digits)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) <= _WHOLE_MAX else value
