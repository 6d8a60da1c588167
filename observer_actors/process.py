"""The daemon's own process: signals, what systemd is told, the search for garbage, and a hard end if it must be."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic_ns
from typing import Final

import trio

from observer_actors.daemon import HARD_EXIT_S, Daemon, open_daemon, require_gateway
from observer_actors.errors import ConfigInvalid, GatewayRequired
from observer_actors.logs import configure_logs, logger, logger_at_any_level
from observer_actors.notify import Notifier, keep_notified
from observer_actors.settings import Settings

GC_THRESHOLDS: Final = (700, 3, 3_000)
"""Of the three generations; Python's own are 700, 10 and 10."""
SWITCH_S: Final = 0.0005
"""How long a thread that computes keeps the interpreter from the event loop, which gives it away with each system call.
With Python's own 5 ms an event takes many times that while somebody else's ops are looked for."""
EXIT_HARD: Final = 70
_TAKEN: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve_until_signalled(settings: Settings, load: Callable[[], Settings]) -> None:
    """Run the daemon of this process: SIGTERM and SIGINT drain, SIGHUP reloads.

    :param load: reads the settings again, from where they came.
    """
    configure_logs(settings.log.level)
    trio.run(_serve, settings, load)


async def _serve(settings: Settings, load: Callable[[], Settings]) -> None:
    sys.setswitchinterval(SWITCH_S)
    notifier = Notifier()
    # The receiver stays open until the very end: leaving it gives the signals their deadly default back, and a second
    # SIGTERM would cut the drain short.
    with trio.open_signal_receiver(*_TAKEN) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN)  # those that came before now
        heard = await _heard_while_gateway_is_awaited(signals, settings)
        if heard - {signal.SIGHUP}:
            return
        with open_daemon(settings) as daemon:
            async with trio.open_nursery() as nursery:
                reload = partial(_reload, daemon, load, notifier, trio.Lock())
                if heard:
                    nursery.start_soon(reload)
                nursery.start_soon(_obey, signals, daemon, reload, notifier)
                nursery.start_soon(keep_notified, notifier, daemon)
                nursery.start_soon(_spare_what_stays, daemon)
                await daemon.run()
                nursery.cancel_scope.cancel()
        logger("daemon").info("stopped", last_seq=daemon.commits.last_seq)


async def _heard_while_gateway_is_awaited(signals: AsyncIterator[int], settings: Settings) -> set[int]:
    """Wait for a gateway that is required, or for a signal that is to end the process; give what was heard.

    :raises GatewayRequired: as of `require_gateway`.
    """
    refused: GatewayRequired | None = None
    heard: set[int] = set()

    async def heed() -> None:
        async for number in signals:
            heard.add(number)
            if number != signal.SIGHUP:
                waiting.cancel_scope.cancel()

    async with trio.open_nursery() as waiting:
        waiting.start_soon(heed)
        try:
            await require_gateway(settings)
        except GatewayRequired as error:  # as it is, and not in a group
            refused = error
        waiting.cancel_scope.cancel()
    if refused is not None:
        raise refused
    return heard


async def _spare_what_stays(daemon: Daemon) -> None:
    """Keep the search for garbage short, since everything stops for it.

    What was there when we were ready is left out of it (50 ms), and all that is there now is searched a hundred times
    as seldom (15 ms each time, every few seconds under load); what has just been made, more often and so for less.
    """
    await daemon.life.wait_ready()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _obey(
    signals: AsyncIterator[int], daemon: Daemon, reload: Callable[[], Awaitable[None]], notifier: Notifier
) -> None:
    async with trio.open_nursery() as reloads:  # a file that hangs must not keep SIGTERM waiting
        async for number in signals:
            if number == signal.SIGHUP:
                reloads.start_soon(reload)
            elif daemon.life.stopping.is_set():
                logger("daemon").info("stopping_already", signal=signal.Signals(number).name)
            else:
                _exit_hard_after(daemon.stop_seconds_max + HARD_EXIT_S)
                logger("daemon").info("stopping", signal=signal.Signals(number).name)
                notifier.send(STOPPING="1", STATUS="draining")
                daemon.stop()


async def _reload(daemon: Daemon, load: Callable[[], Settings], notifier: Notifier, one_at_a_time: trio.Lock) -> None:
    log = logger("daemon")
    await daemon.life.wait_ready()  # before that nobody is served, and READY=1 would be untrue
    async with one_at_a_time:
        notifier.send(RELOADING="1", MONOTONIC_USEC=str(monotonic_ns() // 1_000))
        try:
            now, later = await daemon.reload(load)
        except ConfigInvalid as error:
            log.error("reload_failed", error=str(error), hint="the settings in force stay")  # noqa: TRY400 - no defect
        else:
            telling = logger_at_any_level("daemon") if later else log  # the level may be another one since
            telling.info("reloaded", changed=now, needs_restart=later)
        notifier.send(READY="1")


def _exit_hard_after(seconds: float) -> None:
    """End the process if it does not end by itself: what neither stops nor can be cancelled must not keep it."""
    timer = threading.Timer(seconds, os._exit, (EXIT_HARD,))
    timer.daemon = True
    timer.start()
