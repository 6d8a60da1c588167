"""Text from outside made fit to be shown: nothing in it moves a cursor, forges a line or turns its direction. Pure."""

from __future__ import annotations

__all__ = ["cut", "visible"]


def visible(text: str) -> str:
    """Write what cannot be printed (C0 and C1 controls, line separators, marks of direction) as an escape."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def cut(text: str, characters: int) -> str:
    """Give the visible text, ended by ``…`` when it is longer than so many characters."""
    shown = visible(text[: characters + 1])
    return shown if len(shown) <= characters else shown[: characters - 1] + "…"
