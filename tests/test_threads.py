"""Blocking calls in a thread: what they give, what they raise, and what is left of them."""

import ast
import gc
import threading
import weakref

import pytest
import trio

from observer_actors.threads import in_thread
from tests.conftest import ROOT


class Held:
    """Something that a call has in hand."""


async def test_a_call_gives_what_it_gives_in_another_thread() -> None:
    assert await in_thread(threading.get_ident) != threading.get_ident()


async def test_of_a_call_that_failed_nothing_is_left_once_its_error_is_dealt_with() -> None:
    left: list[weakref.ref[Held]] = []

    def fail() -> None:
        held = Held()
        left.append(weakref.ref(held))
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("then") from error

    gc.collect()
    gc.disable()  # a search for garbage would find it
    try:
        with pytest.raises(ValueError, match="then") as caught:
            await in_thread(fail)
        assert isinstance(caught.value.__cause__, KeyError)
        assert left[0]() is not None, "the error shows where it came from"
        del caught
        await trio.lowlevel.checkpoint()
        assert left[0]() is None
    finally:
        gc.enable()


async def test_a_call_may_be_abandoned() -> None:
    goes_on = threading.Event()
    with trio.move_on_after(0.01) as scope:
        await in_thread(goes_on.wait, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
    goes_on.set()
    assert scope.cancelled_caught


READ_IN_THREADS = ("actors", "client", "journal", "patterns", "playbook", "store", "stats.py")


@pytest.mark.parametrize("place", READ_IN_THREADS)
def test_what_threads_read_is_read_by_decoders_that_are_made_when_their_module_is_imported(place: str) -> None:
    """Msgspec looks a type up at its first use; two threads that begin together ended the process with SIGSEGV."""
    at = ROOT / "observer_actors" / place
    files = [at] if at.is_file() else sorted(at.rglob("*.py"))
    assert files
    found = []
    for file in files:
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "msgspec.json.decode":
                kinds = [ast.unparse(given.value) for given in call.keywords if given.arg == "type"]
                found += [f"{file.name}:{call.lineno} {kind}" for kind in kinds if kind != "dict[str, Any]"]
    assert not found
