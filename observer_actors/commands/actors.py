"""`observer-actors actors`."""

from __future__ import annotations

from typing import Final

from rich.text import Text
from rich.tree import Tree

from observer_actors.commands._answers import ActorAnswer, ActorsAnswer
from observer_actors.commands._options import ApiOptions, JsonFlag
from observer_actors.commands._screen import console, print_json
from observer_actors.visible import cut, visible

STYLES: Final = {"running": "green", "parked": "bold red", "backing_off": "yellow", "stopped": "red"}
ERROR_CHARS: Final = 120


def actors(api: ApiOptions = ApiOptions(), *, json: JsonFlag = False) -> None:
    """Show the tree of actors: state, restarts, queues, last error.

    Example: observer-actors actors
    """
    body, answer = api.get(ActorsAnswer, "/actors")
    if json:
        print_json(body)
    else:
        console().print(tree_of(answer.actors))


def tree_of(found: tuple[ActorAnswer, ...], *, is_cut: bool = False) -> Tree:
    """Lay the tree out, an actor a line; one that is too long is folded, or cut."""
    root = Tree(Text("root", "bold"))
    for actor in found:
        _grow(root, actor, is_cut=is_cut)
    return root


def lines_of(found: tuple[ActorAnswer, ...]) -> int:
    """Count the lines of a tree whose lines are cut."""
    return 1 + sum(lines_of(actor.children) for actor in found)


def _grow(branch: Tree, actor: ActorAnswer, *, is_cut: bool) -> None:
    line = _line(actor)
    if is_cut:
        line.no_wrap, line.overflow = True, "ellipsis"
    grown = branch.add(line)
    for child in actor.children:
        _grow(grown, child, is_cut=is_cut)


def _line(actor: ActorAnswer) -> Text:
    line = Text.assemble((visible(actor.name), "bold"), "  ", (visible(actor.state), STYLES.get(actor.state, "")))
    if actor.strategy:
        line.append(f"  {visible(actor.strategy)}", "dim")
    if actor.restarts:
        line.append(f"  {actor.restarts} restarts", "yellow")
    if actor.mailbox_depth is not None and actor.mailbox_bound:
        line.append(
            f"  {actor.mailbox_depth:,} of {actor.mailbox_bound:,} waiting", "" if actor.mailbox_depth else "dim"
        )
    if actor.last_error:
        line.append(f"  {cut(actor.last_error, ERROR_CHARS)}", "red")
    return line
