"""What `doctor` looks at. Each check gives findings, and leaves everything as it is.

A finding says what is the case, and, when that is not as it should be, what to do. Checks that need the daemon get its
answers; those of the directory and of the machine work on a stopped installation too.
"""

from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from observer_actors import __version__
from observer_actors.commands._answers import ActorAnswer, ActorsAnswer, HealthAnswer
from observer_actors.commands._api import NOBODY, NOT_LET_IN, Api, Refused
from observer_actors.commands._directory import NOT_HERE, may_look_into
from observer_actors.config import Loaded, exposed_files
from observer_actors.errors import ConfigInvalid, DiskFailed, FormatUnknown, Unreachable
from observer_actors.journal import PosixDisk, directory_in_use, look, refuse_seeds_file
from observer_actors.journal.format import Paths
from observer_actors.journal.surveying import counted_seq
from observer_actors.visible import cut

Level = Literal["ok", "unknown", "warning", "problem"]
"""``unknown``: nobody has looked."""

FREE_BYTES_MIN: Final = 200_000_000
FREE_BYTES_WANTED: Final = 2_000_000_000
"""A day of a busy observer, and room to compress a segment in."""
FILES_WANTED: Final = 4_096
EXPIRES_S: Final = 14 * 86_400.0
EXPIRES_SHARE: Final = 0.25
"""A certificate is about to expire when so much is left, or that share of its time where it is shorter."""
SYSTEMD: Final = Path("/run/systemd/system")
"""There where systemd runs the machine (sd_booted(3))."""
UNIT: Final = "observer-actors.service"
ERROR_CHARS: Final = 200


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at. ``advice`` is "" when nothing has to be done."""

    level: Level
    about: str
    what: str
    advice: str = ""


def check_configuration(loaded: Loaded) -> Iterator[Finding]:
    """Look at settings that can be read: whether the files can be used that they name, and what is not wise."""
    from observer_actors.in_force import readings  # noqa: PLC0415 - with all that it needs

    troubles = [trouble for read in readings(loaded.settings).values() for trouble in _unusable(read)]
    yield from troubles
    given = sorted({origin for origin in loaded.origins.values() if origin != "default"})
    if not troubles:
        yield Finding("ok", "configuration", f"can be used; from {', '.join(given) or 'defaults alone'}")
    if loaded.settings.listen.insecure_no_auth:
        yield Finding(
            "warning",
            "configuration",
            "listen.insecure_no_auth: whoever reaches the address may write and read everything",
            "leave it out, or let nobody but the agents reach the port",
        )
    for name, path in exposed_files(loaded.settings):
        yield Finding("warning", "configuration", f"{name}: every user may read {path}", f"chmod o= {path}")


def _unusable(read: Callable[[], object]) -> Iterator[Finding]:
    """Read a file as a start does. Whether the daemon's user may, this one cannot tell who may not."""
    try:
        read()
    except ConfigInvalid as error:
        if isinstance(error.__cause__, PermissionError):
            yield Finding("unknown", "configuration", str(error), "look again as root, or as the daemon's user")
        else:
            yield Finding("problem", "configuration", str(error), error.hint or "mend it: `serve` refuses it too")


def check_directory(data_dir: Path) -> Iterator[Finding]:
    """Look at the data directory and its disk."""
    observer = data_dir / "_observer"
    if not may_look_into(data_dir):
        yield Finding(
            "problem",
            "data directory",
            f"{data_dir.absolute()} is no data directory, or none that this user may look into",
            f"start the daemon once, or {NOT_HERE}",
        )
        return
    yield Finding("ok", "data directory", str(data_dir.absolute()))
    if stat.S_IMODE(observer.stat().st_mode) & 0o077:
        yield Finding(
            "warning", "data directory", "other users may look into it", f"chmod -R go= {observer.absolute()}"
        )
    yield _space(data_dir)
    yield from _leftovers(observer)
    yield from _readable(data_dir)


def _readable(data_dir: Path) -> Iterator[Finding]:
    """Look at the journal as a start does; a daemon that runs has done so itself."""
    try:
        if directory_in_use(data_dir):
            return
        refuse_seeds_file(PosixDisk(), data_dir)
        counted = counted_seq(PosixDisk(), Paths(data_dir))  # first: a daemon may start meanwhile
        journal = look(PosixDisk(), data_dir).snapshot()
    except (DiskFailed, FormatUnknown) as trouble:
        yield Finding("problem", "journal", str(trouble), trouble.hint)
        return
    if journal.missing_ops:
        yield Finding("problem", "journal", f"{journal.missing_ops:,} {_MISSING}", _RESTORE)
    if counted > journal.last_seq:
        what = f"ends at seq {journal.last_seq:,}, and ops up to {counted:,} were counted: those between are lost"
        yield Finding("problem", "journal", what, _PUT_BACK)
    elif not journal.missing_ops:
        yield Finding("unknown", "journal", "not checked whether each line can be read", "run `observer-actors verify`")


def _space(data_dir: Path) -> Finding:
    disk = os.statvfs(data_dir)
    free = disk.f_bavail * disk.f_frsize
    what = f"{free / 1e9:,.1f} GB free"
    if disk.f_flag & os.ST_RDONLY:
        advice = "mount it for writing; where the system itself made it so, `dmesg` says why: check the disk first"
        return Finding("problem", "disk", f"{what}, but mounted read-only", advice)
    if disk.f_files and not disk.f_favail:  # some file systems do not count them
        return Finding("problem", "disk", f"{what}, but no inodes are left for another file", "remove files (`df -i`)")
    level: Level = "ok" if free >= FREE_BYTES_WANTED else "warning" if free >= FREE_BYTES_MIN else "problem"
    advice = "" if level == "ok" else "make room, or set journal.retained_bytes_max so that old segments are deleted"
    return Finding(level, "disk", what, advice)


def _leftovers(observer: Path) -> Iterator[Finding]:
    for pattern, level, what, advice in _LEFTOVERS:
        found = sorted(path.name for path in observer.rglob(pattern))
        if found:
            yield Finding(level, "journal", f"{', '.join(found[:3])}: {what}", advice)


_LEFTOVERS: Final[tuple[tuple[str, Level, str, str], ...]] = (
    (
        "*.torn-*",
        "warning",
        "the end of a write that a crash cut short; unless somebody cut the file, nothing in it was acknowledged",
        "look at it and remove it",
    ),
    (
        "stats.json.foreign-*",
        "warning",
        "counters that go beyond the journal as it was at a start: what was acknowledged up to there is lost",
        "bring the lost ops back: `observer-actors import` of an export leaves out what is there; then remove it",
    ),
    (
        "stats.json.unreadable*",
        "warning",
        "saved counters that could not be read at a start, or not by the daemon's user: they were counted anew",
        "if it is whole, stop the daemon, give it to that user and rename it back to stats.json; else remove it",
    ),
    (
        "manifest.json.damaged-*",
        "warning",
        "a list of segments that could not be read, and has been made anew",
        "run `observer-actors verify`, check the disk, and remove it",
    ),
    (
        "learned.sqlite3.corrupt-*",
        "warning",
        "what had been learned, in a file that was damaged or ahead of the journal, with what persons had decided",
        "check the disk; decide again what was muted, pinned or noted, and remove it",
    ),
    (
        "quarantine.jsonl",
        "warning",
        "messages that made an actor crash again and again",
        "look at them, report them as a defect, and remove the file",
    ),
)


def check_daemon(daemon: Api, data_dir: Path, *, is_named: bool) -> Iterator[Finding]:
    """Look at the daemon that runs, or say that none does.

    :param is_named: somebody has said that this is its directory.
    """
    try:
        answer = daemon.answer("/health")
        health = daemon.decoded(HealthAnswer, answer.content)
    except (Unreachable, Refused) as trouble:
        yield _no_answer(trouble, daemon.shown, in_use=_in_use(data_dir))
        return
    yield Finding("ok", "daemon", f"version {health.version} answers at {daemon.shown}; last seq {health.last_seq:,}")
    if is_named and _in_use(data_dir) is False:
        what = f"the daemon at {daemon.shown} does not use {data_dir.absolute()}, and no other does"
        yield Finding("problem", "daemon", what, "give the --url of the one that is meant, or start it")
    yield from _certificate(answer)
    if health.version != __version__:
        yield Finding("warning", "daemon", f"this command is version {__version__}", "restart the daemon")
    try:
        yield _readiness(daemon)
        yield from check_actors(daemon.read(ActorsAnswer, "/actors").actors)
        yield from check_counters(daemon.get("/metrics").decode())
    except Refused as refusal:
        yield _no_more(refusal)
    except Unreachable as trouble:
        advice = "look again: if it is no other time either, its log says why"
        yield Finding("problem", "daemon", f"hangs, or went away while it was asked: {trouble}", advice)
    yield from _limits(data_dir / "_observer" / "lock")


def _certificate(answer: httpx.Response) -> Iterator[Finding]:
    """Look at the certificate in force, which came with an answer, and may be another than that of the file."""
    encrypted = answer.extensions["network_stream"].get_extra_info("ssl_object")
    with suppress(OSError, ValueError):  # the connection has been closed since
        if encrypted is not None and (found := encrypted.getpeercert()):
            began, ends = (ssl.cert_time_to_seconds(found[name]) for name in ("notBefore", "notAfter"))
            yield from check_certificate(began, ends, now=time.time())


def check_certificate(began: float, ends: float, *, now: float) -> Iterator[Finding]:
    """Look at how long a certificate holds; all in seconds since 1970."""
    if ends - now < min(EXPIRES_S, EXPIRES_SHARE * (ends - began)):
        what = f"its certificate expires on {datetime.fromtimestamp(ends, UTC):%Y-%m-%d, %H:%M} UTC"
        yield Finding("warning", "daemon", what, "renew it; a reload (SIGHUP) takes the new one, or a restart")


def _in_use(data_dir: Path) -> bool | None:
    """Tell whether a daemon uses a directory; None when that cannot be seen, which is told with the directory."""
    with suppress(DiskFailed):
        return directory_in_use(data_dir) if may_look_into(data_dir) else None
    return None


def _no_answer(trouble: Unreachable | Refused, address: str, *, in_use: bool | None) -> Finding:
    if in_use:
        what = f"a daemon runs on this directory, and does not answer at {address}: {trouble}"
        advice = "its log says where it listens: give that with --url; if it does, it hangs, or was stopped"
        return Finding("problem", "daemon", what, advice if trouble.hint in ("", NOBODY) else trouble.hint)
    if trouble.hint == NOBODY:
        advice = "`systemctl start observer-actors`, or `observer-actors serve`"
        return Finding("problem", "daemon", f"none runs: {trouble}", advice)
    advice = trouble.hint or "is --url right? The daemon's log says where it listens"
    return Finding("problem", "daemon", f"whether one runs cannot be seen: {trouble}", advice)


def _no_more(refusal: Refused) -> Finding:
    advice = refusal.hint or "the log says why"
    if refusal.answered in NOT_LET_IN:
        advice = "put a token with the scope read into OBSERVER_TOKEN, and look again"
    return Finding("problem", "daemon", f"does not say how it is: {refusal}", advice)


def _readiness(daemon: Api) -> Finding:
    answer = daemon.readiness()
    if answer.ready:
        return Finding("ok", "daemon", "takes events")
    advice = "if it is the disk, make room or mend it: the daemon goes on by itself; else look at the load"
    return Finding("problem", "daemon", f"takes no events: {'; '.join(answer.reasons)}", advice)


def check_actors(found: tuple[ActorAnswer, ...]) -> Iterator[Finding]:
    """Look at the tree: who does not run, and who had to be started again, but for those that another took along."""
    for actor in found:
        if actor.last_error and actor.state in ("parked", "backing_off"):
            what = f"{actor.name} is {actor.state.replace('_', ' ')}: {cut(actor.last_error, ERROR_CHARS)}"
            yield Finding("problem", "actors", what, "the log says what happened: look for actor_failed")
        elif actor.last_error and actor.restarts:
            what = f"{actor.name} was restarted {actor.restarts} times: {cut(actor.last_error, ERROR_CHARS)}"
            yield Finding("warning", "actors", what, _after(actor.last_error))
        yield from check_actors(actor.children)


def _after(error: str) -> str:
    if error.startswith(("DiskFailed", "DiskFull")):
        return "it runs again; look at the disk"
    return "it runs again; report the error as a defect"


_MISSING: Final = "ops of the journal are in no file any more"
_RESTORE: Final = "run `observer-actors verify`, and restore the lost segments from a backup"
_PUT_BACK: Final = "before a daemon is started, put back what was cut or removed: it gives the seqs of these ops again"
_COUNTED: Final[tuple[tuple[str, Level, str, str], ...]] = (
    (
        "observer_journal_damaged_lines",
        "problem",
        "lines of the journal cannot be read",
        "run `observer-actors verify`, check the disk, and restore the segment from a backup",
    ),
    (
        "observer_journal_missing_ops",
        "problem",
        _MISSING,
        _RESTORE,
    ),
    (
        "observer_reloads_failed",
        "warning",
        "reloads have failed since the start, or since the last good one: something older is in force",
        "the log says why: look for reload_failed and reload_incomplete; mend it, and reload again",
    ),
    (
        "observer_disk_errors_total",
        "warning",
        "writes or syncs were refused by the disk since the start",
        "check the disk and its space; `observer-actors verify` says whether the journal is whole",
    ),
    (
        "observer_ingest_refused_total",
        "warning",
        "requests were refused for lack of room or disk since the start",
        "senders with an id can send again; if it goes on, look at the disk's speed",
    ),
    (
        "observer_outbox_dropped_total",
        "warning",
        "messages for the {receiver} were dropped, because too many waited",
        "see why it does not answer, or raise gateway.outbox_max",
    ),
    (
        "observer_outbox_refused_total",
        "warning",
        "messages were refused for good by the {receiver}",
        "they are not sent again: the log says what was answered; look for message_refused",
    ),
    (
        "observer_webhook_dropped_total",
        "warning",
        "messages for the webhook were let go before they were saved since the start",
        "the disk does not take what is learned: check it and its space",
    ),
    (
        "observer_sources_unknown_total",
        "warning",
        "events had a source that is not known, and were kept as scenario",
        "add it to sources.extra; the log says which",
    ),
)


def check_counters(metrics: str) -> Iterator[Finding]:
    """Look at what is counted and should not be: each series by itself, for its labels say whom to look at."""
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    for name, level, what, advice in _COUNTED:
        for sample in samples:
            if sample.name == name and sample.value:
                yield Finding(level, "counters", f"{sample.value:,.0f} {what.format(**sample.labels)}", advice)


def _limits(lock: Path) -> Iterator[Finding]:
    """Look at the limits of the process that holds the lock; only its own user and root may."""
    try:
        limits = Path(f"/proc/{int(lock.read_text())}/limits").read_text()
    except (OSError, ValueError):
        return
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    hard = line.split()[4]
    if hard.isdigit() and int(hard) < FILES_WANTED:
        what = f"the daemon may open {hard} files only, and so hold about as many connections"
        yield Finding("warning", "limits", what, "raise it: LimitNOFILE= in the unit, or ulimit -n")


def check_unit() -> Iterator[Finding]:
    """Look at what systemd says, where it runs and knows us."""
    tool = shutil.which("systemctl")
    if tool is None or not SYSTEMD.is_dir():
        return
    yield from _unit(tool, "")
    yield from _unit(tool, " --user")


def _unit(tool: str, scope: str) -> Iterator[Finding]:
    command = [tool, *scope.split(), "show", UNIT, "--property=LoadState,ActiveState,Result,NRestarts,ExecMainStatus"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})  # noqa: S603
    said = dict(line.split("=", 1) for line in ended.stdout.splitlines() if "=" in line)
    if said.get("LoadState") != "loaded":
        return
    state = said.get("ActiveState", "")
    if state == "failed":
        restart = f"systemctl{scope} restart {UNIT}"
        what = f"{UNIT} failed: {said.get('Result')}, exit status {said.get('ExecMainStatus')}"
        again = f"`systemctl{scope} reset-failed {UNIT}`, for connections may have used up its starts, and `{restart}`"
        advice = f"`journalctl{scope} -u {UNIT} -n 50` says why; after mending, {again}"
        yield Finding("problem", "systemd", what, advice)
    elif said.get("NRestarts", "0") != "0":
        what = f"{UNIT} was restarted {said['NRestarts']} times by systemd"
        yield Finding("warning", "systemd", what, f"`journalctl{scope} -u {UNIT}` says why")
    else:
        yield Finding("ok", "systemd", f"{UNIT} is {state}")
