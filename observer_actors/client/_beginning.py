"""The beginning of a value: as much of it as is shown, so that a huge one costs no more than a large one. Pure.

No JSON can be made of half a list, so what holds too much is copied first, as far as there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from types import MappingProxyType, NoneType
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

DEPTH_MAX: Final = 32
_CUT: Final = "…"
_ATOMS: Final = frozenset({int, float, bool, NoneType})
_TEXTS: Final = (str, bytes, bytearray)
_MANY: Final = (list, tuple, set, frozenset, deque, KeysView, ValuesView, ItemsView)


def beginning(value: object, chars: int) -> object:
    """Give a value, if its JSON has about so many characters at most, else a copy of its beginning."""
    return value if type(value) in _ATOMS or _fits(value, chars) else _Copy(chars).of(value, ())


def _fits(value: object, room: int) -> bool:
    waiting = [value]
    while waiting and room >= 0:
        one = waiting.pop()
        kind = type(one)
        room -= 1
        if kind in _ATOMS:
            continue
        if isinstance(one, _TEXTS):
            room -= len(one)
        elif kind is not dict and isinstance(one, _MANY):
            room -= len(one)
            if room >= 0 and not _ATOMS.issuperset(map(type, one)):
                waiting += one
        elif (named := _named(one)) is not None:
            room -= len(named)
            if room >= 0:
                waiting += named
                waiting += named.values()
    return room >= 0


def _named(value: object) -> Mapping[Any, object] | None:
    """Give what is a JSON object: a mapping, or the fields of a struct or dataclass."""
    if isinstance(value, dict | MappingProxyType):
        return value
    fields = value.__struct_fields__ if isinstance(value, msgspec.Struct) else _dataclass_fields(value)
    return None if fields is None else {name: getattr(value, name, None) for name in fields}


def _dataclass_fields(value: object) -> Mapping[str, object] | None:
    fields = getattr(type(value), "__dataclass_fields__", None)
    return fields if isinstance(fields, dict) else None


class _Copy:
    """A copy that ends where the room does; what is nested too deeply, or holds itself, ends there too."""

    def __init__(self, room: int) -> None:
        self._room = room

    def of(self, value: object, within: tuple[int, ...]) -> object:
        """Copy a value.

        :param within: what it is within, by identity.
        """
        if type(value) in _ATOMS:
            self._room -= 1
            return value
        if isinstance(value, str):
            head = value[: max(0, self._room) + 1]
            self._room -= len(head) + 1
            return head
        if isinstance(value, bytes | bytearray):
            some = value[: 4 * (max(0, self._room) + 1)]  # of a character there are four at most
            self._room -= len(some) // 4 + 1
            return some
        if self._room < 0 or id(value) in within or len(within) >= DEPTH_MAX:
            self._room -= 1
            return _CUT
        within = (*within, id(value))
        if isinstance(value, _MANY):
            return [self.of(item, within) for item in self._items(value)]
        named = _named(value)
        if named is None:
            self._room -= 1
            return value
        return {self.of(name, within): self.of(item, within) for name, item in self._items(named.items())}

    def _items(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            if self._room < 0:
                return
            self._room -= 1
            yield item
