"""The id of an imported line that has none: by it the daemon knows the line when it is sent again.

It is made from the line's place, its bytes, and what tells its log from others. That is how the log begins, its first
4 KiB, which stay the same when it grows, is moved or compressed. But a shorter log may begin as another does, and lines
without a time of their own may be the same in two logs: of these it is the file's name.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from observer_actors.event import with_whole_characters
from observer_actors.problems import UNREADABLE

BEGINNING_BYTES: Final = 4_096
"""What tells a log from others: several lines, which two logs that begin in the same second hardly have in common."""


class LineIds:
    """Makes the ids of one file's lines.

    :param name: of the file: what tells a line without a time from one with the same bytes at the same place of
        another file.
    :param begins: the first `BEGINNING_BYTES` of the file, or all there are: the same for a line that has a time.
    """

    def __init__(self, name: bytes, begins: bytes) -> None:
        self.name = name
        self._log = _which_log(begins, begins.partition(b"\n")[0], name)

    def added(self, lines: list[bytes], offset: int) -> bytes:
        """Give lines with an id in each object that had none; whatever is no object is the daemon's to reject.

        :param offset: of the first one in the file, in bytes.
        """
        body = b"".join(lines)
        if body.lstrip().startswith(b"["):
            return self._added_to_array(body, offset)
        made = []
        for line in lines:
            made.append(_with_id(line, self._log, self.name, offset))
            offset += len(line)
        return b"".join(made)

    def _added_to_array(self, body: bytes, offset: int) -> bytes:
        """Do so in a JSON array, which the daemon takes as well. How its items begin tells it from others."""
        try:
            items = [bytes(item) for item in _array_decoder.decode(body)]
        except UNREADABLE:
            return body
        log = _which_log(b",".join(items), items[0], self.name) if items else b""
        return b"[%b]" % b",".join(_with_id(item, log, self.name, offset + place) for place, item in enumerate(items))


class _Told(msgspec.Struct):
    """What a line says of which one it is."""

    id: Any = None
    timestamp: Any = None


_decoder: Final = msgspec.json.Decoder(_Told)
_array_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def _which_log(begins: bytes, first: bytes, name: bytes) -> bytes:
    """Tell a log from others by how it begins; a short one by its first line, and the name of its file."""
    if len(begins) >= BEGINNING_BYTES:
        return _digest(begins[:BEGINNING_BYTES])
    return _digest(b"%b\0%b" % (name, first))


def _digest(what: bytes) -> bytes:
    """Hash it; whether a line has its newline yet makes no difference."""
    return hashlib.blake2b(what.rstrip(), digest_size=12).digest()


def _with_id(line: bytes, log: bytes, name: bytes, offset: int) -> bytes:
    """Write the id at the end: of two the last counts, should the line have one that is null."""
    try:
        said = _decoder.decode(with_whole_characters(line))
    except UNREADABLE:
        return line
    if said.id is not None:
        return line
    end = line.rindex(b"}")
    if line[:end].strip() == b"{":
        return line
    digest = _digest(b"%b\0%d\0%b" % (log if said.timestamp else name, offset, line))
    return b'%b,"id":"import-%b"%b' % (line[:end], digest.hex().encode(), line[end:])
