"""Texts as they are shown. One from outside moves no cursor, forges no line and turns no direction. Pure."""

from __future__ import annotations

__all__ = ["cut", "snake", "visible"]


def visible(text: str) -> str:
    """Write what cannot be printed (C0 and C1 controls, line separators, marks of direction) as an escape."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def cut(text: str, characters: int) -> str:
    """Give the visible text, ended by ``…`` when it is longer than so many characters."""
    shown = visible(text[: characters + 1])
    return shown if len(shown) <= characters else shown[: characters - 1] + "…"


def snake(name: str) -> str:
    """Write the name of a type as logs and metrics do: ``ActorFailed`` is ``actor_failed``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
