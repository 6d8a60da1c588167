"""The beginning of a value: as much of it as is shown, so that a huge one costs no more than a large one. Pure.

No JSON can be made of half a list, so what holds too much is copied first, as far as there is room. What is small in it
is taken as it is: a look takes a third of the time of a copy.
"""

from __future__ import annotations

from collections import UserDict, UserList, deque
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import islice
from types import MappingProxyType, NoneType
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

DEPTH_MAX: Final = 32
_FEW_CHARS: Final = 250
"""What has so few is taken as it is: a row, say. More would let what is nested be looked at many times over."""
_TOGETHER: Final = 32
"""Items of a list that are taken together, if they are that small."""
_CUT: Final = "…"
_ATOMS: Final = frozenset({int, float, bool, NoneType})
_BYTES: Final = (bytes, bytearray, memoryview)
_TEXTS: Final = (str, *_BYTES)
_MAPPINGS: Final = (dict, MappingProxyType, UserDict)
_MANY: Final = (list, tuple, set, frozenset, deque, UserList, KeysView, ValuesView, ItemsView)


def beginning(value: object, chars: int) -> object:
    """Give a value, if its JSON has about so many characters at most, else a copy of its beginning."""
    return value if type(value) in _ATOMS or _left(value, chars) >= 0 else _Copy(chars).of(value, ())


def _left(value: object, room: int) -> int:
    """Give what a value leaves of the room; below 0, and no more than that is looked at, when it does not fit.

    Most of what a large input costs an operation is spent here: JSON itself takes a tenth of that.
    """
    waiting: list[list[object]] = [[value]]
    while waiting:
        for one in waiting.pop():
            if type(one) is str:
                room -= len(one)
            elif type(one) not in _ATOMS:
                room -= _opened(one, room, waiting)
            if room < 0:
                return room
    return room


def _opened(one: object, room: int, waiting: list[list[object]]) -> int:
    """Give what a value takes of the room by itself; what is in it waits, if there is room for that.

    As a copy: what the host changes meanwhile must not stop us.
    """
    if type(one) is not dict:
        if isinstance(one, _TEXTS):
            return len(one)
        if isinstance(one, _MANY):
            takes = 2 * len(one)
            if takes <= room and not _ATOMS.issuperset(map(type, one)):
                waiting.append([*one])
            return takes
    named = _named(one)
    if named is None:
        return 1
    takes = 3 * len(named)
    if takes <= room:
        waiting.append([*named, *named.values()])
    return takes


def _named(value: object) -> Mapping[Any, object] | None:
    """Give what is a JSON object: a mapping, or the fields of a struct or dataclass."""
    if isinstance(value, _MAPPINGS):
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
        if isinstance(value, _BYTES):
            some = value[: 4 * (max(0, self._room) + 1)]  # of a character there are four at most
            self._room -= len(some) // 4 + 1
            return some
        if self._room < 0 or id(value) in within or len(within) >= DEPTH_MAX:
            self._room -= 1
            return _CUT
        if self._takes(value):
            return value
        within = (*within, id(value))
        if isinstance(value, _MANY):
            return self._list(value, within)
        named = _named(value)
        if named is None:
            self._room -= 1
            return value
        copied: dict[object, object] = {}
        for name, item in self._items(named.items()):
            copied.setdefault(self.of(name, within), self.of(item, within))  # a cut name may be that of another
        return copied

    def _list(self, value: Iterable[object], within: tuple[int, ...]) -> list[object]:
        copied: list[object] = []
        items = iter(value)
        while self._room >= 0 and (some := [*islice(items, _TOGETHER)]):
            copied += some if self._takes(some) else [self.of(item, within) for item in self._items(some)]
        return copied

    def _takes(self, value: object) -> bool:
        """Take what is small as it is."""
        few = min(self._room, _FEW_CHARS)
        left = _left(value, few)
        if left >= 0:
            self._room -= few - left
        return left >= 0

    def _items(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            if self._room < 0:
                return
            self._room -= 1
            yield item
