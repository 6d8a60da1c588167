"""Every fault, and what is promised about it."""

from __future__ import annotations

from typing import Final

from tests.faults import bytes as rot
from tests.faults import callers, clocks, descriptors, directories, disks, kills, volumes
from tests.faults.scenario import Scenario

__all__ = ["SCENARIOS"]

KEPT: Final = (
    "every acknowledged op is stored exactly once, unaltered, where the answer said; `seq` has no gap; each caller's"
    " order is kept; `verify` finds no damage; the counters come to what is stored"
)

SCENARIOS: Final = (
    Scenario(
        name="kill",
        fault="SIGKILL at a random moment, under load; a fifth of them while the daemon starts",
        injected_by="a signal",
        promised=KEPT,
        run=kills.kill_under_load,
        rounds=20,
        repeats=10,
    ),
    Scenario(
        name="kill-at-call",
        fault="SIGKILL as the n-th fdatasync, fsync, rename, ftruncate, unlink or write is made",
        injected_by="strace, from the start of the process",
        promised=KEPT,
        run=kills.kill_at_a_system_call,
        rounds=8,
        repeats=6,
    ),
    Scenario(
        name="kill-disk",
        fault="SIGKILL of the process that appends and syncs, under load, or SIGSTOP for up to 1.5 s",
        injected_by="a signal",
        promised=f"goes on by itself; {KEPT}",
        run=kills.kill_the_disks_process,
        rounds=6,
        repeats=5,
        repeats_bounded=2,
    ),
    Scenario(
        name="stop",
        fault="SIGTERM at a random moment, under load, half of them twice",
        injected_by="a signal",
        promised=f"it ends with 0 within its stop budgets; {KEPT}",
        run=kills.stop_under_load,
        rounds=4,
        repeats=5,
    ),
    Scenario(
        name="stand-still",
        fault="SIGSTOP for up to 1.5 s",
        injected_by="a signal",
        promised=f"goes on by itself; {KEPT}",
        run=kills.stand_still,
        rounds=4,
        repeats=10,
        repeats_bounded=2,
    ),
    Scenario(
        name="disk-fails",
        fault="EIO from fdatasync, write, ftruncate, rename, fsync, or all of them: once, or for up to 2.5 s",
        injected_by="strace, attached to the running daemon",
        promised=f"503 while it lasts, and what was refused is not stored; goes on by itself; {KEPT}",
        run=disks.disk_fails,
        rounds=10,
        repeats=8,
        repeats_bounded=2,
    ),
    Scenario(
        name="disk-full",
        fault="ENOSPC from write and fdatasync: once, or for up to 2.5 s",
        injected_by="strace, attached to the running daemon",
        promised=f"507 while it lasts, and what was refused is not stored; goes on by itself; {KEPT}",
        run=disks.disk_is_full,
        rounds=6,
        repeats=8,
    ),
    Scenario(
        name="disk-slow",
        fault="each fdatasync takes 20 ms to 1.5 s, which is longer than a caller waits",
        injected_by="strace, attached to the running daemon",
        promised=f"callers wait, then 503, which says whether the op may be stored yet; {KEPT}",
        run=disks.disk_is_slow,
        rounds=6,
        repeats=6,
    ),
    Scenario(
        name="tmpfs-full",
        fault="a file system without a free page, while the daemon runs and as it starts",
        injected_by="a tmpfs in a mount namespace of its own, filled",
        promised=f"starts all the same; 507 while it lasts; goes on by itself; {KEPT}",
        run=volumes.file_system_is_full,
        rounds=6,
        repeats=5,
    ),
    Scenario(
        name="read-only",
        fault="the data directory lies on a read-only file system as the daemon starts",
        injected_by="a tmpfs, mounted anew as read-only",
        promised=f"no start: exit status 78, and the reason; once it is writable, {KEPT}",
        run=volumes.read_only_at_the_start,
        rounds=4,
        repeats=3,
    ),
    Scenario(
        name="unwritable",
        fault="the directories lose their write permission for up to 2.5 s: no segment can be sealed",
        injected_by="chmod, on a daemon without root's privilege",
        promised=f"events are taken as long as the open file can be written; {KEPT}",
        run=volumes.unwritable_for_a_while,
        rounds=4,
        repeats=6,
    ),
    Scenario(
        name="deleted",
        fault="the data directory is removed under load",
        injected_by="rm",
        promised="nothing sent from then on is acknowledged: 503, and a reason; SIGTERM ends it; a new start begins"
        " at 1",
        run=directories.deleted,
        rounds=5,
        repeats=4,
    ),
    Scenario(
        name="moved-away",
        fault="the data directory gets another name for up to 2.5 s",
        injected_by="rename",
        promised=KEPT,
        run=directories.moved_away,
        rounds=4,
        repeats=6,
    ),
    Scenario(
        name="second-daemon",
        fault="a second daemon is started on the same directory",
        injected_by="a process",
        promised=f"it is refused: exit status 75, and who has it; the first goes on; {KEPT}",
        run=directories.taken_by_a_second,
        rounds=4,
        repeats=5,
    ),
    Scenario(
        name="two-at-once",
        fault="two daemons are started on the same directory at the same moment",
        injected_by="two processes",
        promised=f"one is refused with 75, the other serves; {KEPT}",
        run=directories.two_at_once,
        rounds=4,
        repeats=5,
    ),
    Scenario(
        name="corrupt-byte",
        fault="one byte of one file is another, in each kind of file in turn",
        injected_by="a copy of a directory, changed, on which the daemon is then started",
        promised="it starts and takes events, no seq is given twice, and what is lost is said; what is checksummed"
        " (sealed and compacted) is never served altered",
        run=rot.corrupt_byte,
        rounds=8,
        repeats=9,
    ),
    Scenario(
        name="clock-jumps",
        fault="the wall clock jumps by a second to a year, forward and back",
        injected_by="a preloaded library that moves what the process is told",
        promised=f"`recorded_at` never goes backwards; {KEPT}",
        run=clocks.clock_jumps,
        rounds=4,
        repeats=10,
        repeats_bounded=2,
    ),
    Scenario(
        name="connections",
        fault="220 connections at once to a daemon that may open 160 files",
        injected_by="prlimit",
        promised=f"those beyond are told 503 at once; everyone else is served; {KEPT}",
        run=descriptors.more_connections_than_files,
        rounds=4,
        repeats=4,
    ),
    Scenario(
        name="no-files",
        fault="EMFILE from whatever opens a file or takes a connection, for up to 2.5 s",
        injected_by="prlimit, on the running daemon",
        promised=f"goes on by itself; {KEPT}",
        run=descriptors.no_file_can_be_opened,
        rounds=4,
        repeats=6,
    ),
    Scenario(
        name="deaf",
        fault="24 clients send 2,000 requests each (`/ops`, `/tail`, `/metrics`) and read no answer",
        injected_by="sockets with the smallest buffers",
        promised=f"others are served meanwhile, memory grows by no more than 150 MiB, SIGTERM ends it with 0; {KEPT}",
        run=callers.read_nothing,
        rounds=4,
    ),
)
