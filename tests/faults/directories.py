"""The data directory is taken away, moved, or wanted by somebody else."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Final

import trio

from tests.daemon.load import connected, stored_ops
from tests.faults.trial import LIMIT_S, Trial
from tests.harness import Daemon

EXIT_TAKEN: Final = 75
HELD_S_MAX: Final = 2.5
TRIES: Final = 20


async def deleted(trial: Trial) -> None:
    """Everything is removed while the daemon writes: from then on it acknowledges nothing, and says why.

    A second one that is started on the name then has it for itself.
    """
    for _ in range(trial.repeats):
        async with trial.daemon() as daemon:
            async with trial.callers(daemon):
                await trial.more(trial.chance.randint(50, 300))
                while trial.data.exists():  # the daemon may be making a file in it just then
                    await trio.to_thread.run_sync(partial(shutil.rmtree, trial.data, ignore_errors=True))
                trial.injected()
                await _acknowledges_nothing(daemon)
                await _gives_way_to_a_second(trial, daemon)
            with trio.fail_after(LIMIT_S):
                assert await daemon.stop() == 0
            assert [op.endpoint for op in stored_ops(trial.data)] == ["second"] * TRIES
            shutil.rmtree(trial.data)
    async with trial.daemon() as daemon:
        assert (await daemon.event(endpoint="anew"))["seq"] == 1
        assert await daemon.stop() == 0
    assert [op.endpoint for op in stored_ops(trial.data)] == ["anew"]


async def _acknowledges_nothing(daemon: Daemon) -> None:
    async with connected(daemon.url) as wire:
        for _ in range(TRIES):
            answer = await wire.post("/event", b"{}")
            assert answer.status == 503, answer
            assert answer.json["title"] == "disk failed"
    assert (await daemon.get("/ready")).status_code == 503


async def _gives_way_to_a_second(trial: Trial, first: Daemon) -> None:
    """Start another daemon on the name of a directory that is no longer there; both are asked by turns."""
    async with trial.daemon() as second:
        for seq in range(1, TRIES + 1):
            assert (await second.event(endpoint="second"))["seq"] == seq
            assert (await first.post("/event", b"{}")).status_code == 503
        assert (await first.get("/ready")).status_code == 503
        assert await second.stop() == 0


async def moved_away(trial: Trial) -> None:
    """The directory gets another name while the daemon writes, and its own one back; in the end after a second daemon.

    That one was started on the name meanwhile, and the directory that it has made is moved away too.
    """
    away = trial.data.with_name("away")
    async with trial.daemon() as daemon:
        async with trial.callers(daemon):
            for _ in range(trial.repeats):
                await trial.more(trial.chance.randint(50, 200))
                trial.data.rename(away)
                await trio.sleep(trial.chance.uniform(0, HELD_S_MAX))
                away.rename(trial.data)
                trial.injected()
                await trial.recovered()
            trial.data.rename(away)
            await _gives_way_to_a_second(trial, daemon)
            assert [op.endpoint for op in stored_ops(trial.data)] == ["second"] * TRIES
            trial.data.rename(trial.data.with_name("second's"))
            away.rename(trial.data)
            trial.injected()
            await trial.recovered()
        await trial.finish_with(daemon)


async def taken_by_a_second(trial: Trial) -> None:
    """A second daemon is started on the same directory: it refuses by the lock, and the first does not notice."""
    async with trial.daemon() as first:
        async with trial.callers(first):
            for _ in range(trial.repeats):
                await trial.more(50)
                async with trial.daemon(wait_ready=False) as second:
                    await _is_refused(second)
                    assert f"in use by process {first.process.pid}" in second.raw_log[0]
                trial.injected()
            await trial.more(50)
        await trial.finish_with(first)


async def two_at_once(trial: Trial) -> None:
    """Two are started at the same moment: one of them serves."""
    for _ in range(trial.repeats):
        async with trial.daemon(wait_ready=False) as one, trial.daemon(wait_ready=False) as other:
            refused = await _first_to_end(one, other)
            await _is_refused(refused)
            serving = other if refused is one else one
            await serving.ready(within_s=LIMIT_S)
            async with trial.callers(serving):
                await trial.more(50)
            trial.injected()
            assert await serving.stop() == 0
    await trial.finish()


async def _first_to_end(*daemons: Daemon) -> Daemon:
    ended: list[Daemon] = []

    async def wait(daemon: Daemon) -> None:
        await daemon.process.wait()
        ended.append(daemon)
        nursery.cancel_scope.cancel()

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            for daemon in daemons:
                nursery.start_soon(wait, daemon)
    return ended[0]


async def _is_refused(daemon: Daemon) -> None:
    with trio.fail_after(LIMIT_S):
        assert await daemon.process.wait() == EXIT_TAKEN
    await daemon.log_ended()
    assert "in use by process" in daemon.raw_log[0]
