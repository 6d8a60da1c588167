"""`python -m benchmarks`: measure, and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Never

import msgspec
import trio

from benchmarks import (
    advice,
    company,
    events,
    grouping,
    half_load,
    history,
    limits,
    memory,
    micro,
    neighbours,
    profile,
)
from benchmarks.bench import ROOT, Bench, find_tools
from benchmarks.contest import Contest, Run
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.rounds import hold
from benchmarks.targets import MEMORY_SECONDS, OPS
from tests.machine import disk_folder, file_system, machine, versions

REPORT: Final = ROOT / "docs" / "benchmarks.md"
NOTES: Final = Path(__file__).with_name("notes.md")
CONTESTS: Final[Mapping[Contest, Callable[[Bench], dict[str, Run]]]] = {
    events.EVENT_C32: partial(events.runs, connections=32),
    events.EVENT_C256: partial(events.runs, connections=256),
    events.BATCH: events.batch_runs,
    half_load.HALF_LOAD: half_load.runs,
    company.COMPANY: company.runs,
    neighbours.NEIGHBOURS: neighbours.runs,
    history.THROUGHPUT: history.throughput_runs,
    history.START: history.start_runs,
    history.QUERIES: history.query_runs,
    advice.ADVICE: advice.runs,
    memory.MEMORY: memory.runs,
    profile.PROFILE: profile.runs,
    limits.LIMITS: limits.runs,
    micro.MICRO: micro.runs,
    grouping.GROUPING: grouping.runs,
}
"""In this order: `half_load` halves what the first has measured."""
FILES_MAX: Final = 20_000
"""Two thousand connections are two thousand descriptors in wrk, and as many in the daemon."""
REPORT_HELP: Final = (
    "where the report goes; unless given, docs/benchmarks.md for a whole run of three rounds or more, and standard"
    " output for any other"
)
ROUNDS: Final = 5
SECONDS: Final = 8
ROUNDS_MIN: Final = 3
"""Fewer have no spread to speak of."""
INTERRUPTED: Final = 130
REFUSED: Final = 2
WITHOUT_WRK: Final = 1
PROGRAM: Final = "python -m benchmarks"
_PATHS: Final = {"--cache": "DIR", "--folder": "DIR", "--from": "FILE", "--json": "FILE", "--report": "FILE"}
"""Options whose value is a path -> what is shown of it."""


def main() -> int:
    """Run the command line; give the exit status."""
    arguments = _parser().parse_args()
    _check(arguments)
    if arguments.earlier is not None:
        _write(arguments, _earlier(arguments.earlier))
        return 0
    chosen = _chosen(arguments.only)
    with ExitStack() as stack:
        made = tempfile.TemporaryDirectory(
            prefix="benchmarks-", dir=disk_folder(arguments.folder), ignore_cleanup_errors=True
        )
        bench = _bench(arguments, Path(stack.enter_context(made)))
        stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
        tempfile.tempdir = str(bench.folder)  # for the seed, which makes its own: the same disk for everyone
        _allow_many_files(bench)
        finished = trio.run(_measure_or_be_told, bench, chosen)
    if not finished:
        bench.say("stopped; no report is written")
        return INTERRUPTED
    _write(arguments, bench.results)
    return WITHOUT_WRK if _lacks_wrk(bench, chosen) else 0


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(contest.name for contest in CONTESTS)
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Measure the daemon and its rivals.", allow_abbrev=False)
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of a second: tells whether it runs, and little else")
    add("--only", action="append", metavar="NAME", help=f"one measurement, or those that begin so: {names}")
    add("--rounds", type=int, default=ROUNDS, metavar="N", help="rounds (default: %(default)s)")
    add("--seconds", type=int, default=SECONDS, metavar="S", help="of each measurement (default: %(default)s)")
    add("--ops", type=int, metavar="N", help=f"in the full journal (default: {OPS:,})")
    add(
        "--cache", type=Path, metavar="DIR", help="where the full journal is kept for the next run (default: it is not)"
    )
    add("--folder", type=Path, metavar="DIR", help="where temporary files go: the disk that is measured")
    add(
        "--from",
        type=Path,
        metavar="FILE",
        dest="earlier",
        help="measure nothing: write the report of an earlier --json",
    )
    add("--json", type=Path, metavar="FILE", help="keep everything that was measured there, contest by contest")
    add("--report", type=Path, metavar="FILE", help=REPORT_HELP)
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what could only fail later."""
    if arguments.rounds < 1:
        _refuse("--rounds: at least 1")
    if arguments.seconds < 1:
        _refuse("--seconds: at least 1")
    if arguments.earlier is not None and (
        said := _given(arguments, "quick", "rounds", "seconds", "ops", "cache", "folder", "json", "only")
    ):
        _refuse(f"--from: measures nothing, so {said[0]} has no meaning")
    if arguments.quick and (said := _given(arguments, "rounds", "seconds")):
        _refuse(f"--quick: is one round of a second, so {said[0]} has no meaning")
    if arguments.ops is not None and arguments.ops < 1:
        _refuse("--ops: at least 1")
    _check_files(arguments)
    for option, folder in (("--folder", arguments.folder), ("--cache", _made(arguments.cache))):
        if folder is not None and not _is_open(folder):
            _refuse(f"{option}: {folder} is no folder that can be written to")


def _check_files(arguments: argparse.Namespace) -> None:
    """Refuse files that cannot be written, and a report in place of the figures that it is made from."""
    for option, file in (("--json", arguments.json), ("--report", arguments.report)):
        if file is not None and not _is_writable(file):
            _refuse(f"{option}: {file} cannot be written")
    kept = arguments.earlier or arguments.json
    target = arguments.report or REPORT
    if kept is not None and target.resolve() == kept.resolve():
        _refuse(f"--report: {target} is where the figures themselves are kept")


def _given(arguments: argparse.Namespace, *names: str) -> list[str]:
    """Give the options among these that were given, as they are typed."""
    defaults = _parser().parse_args([])
    return [f"--{name}" for name in names if getattr(arguments, name) != getattr(defaults, name)]


def _is_writable(file: Path) -> bool:
    if os.access(file, os.F_OK):
        return os.access(file, os.W_OK) and not file.is_dir()
    return _is_open(file.parent)


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and folder.is_dir()


def _made(cache: Path | None) -> Path | None:
    """Make the folder of the full journal."""
    if cache is not None:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _refuse(f"--cache: {cache} cannot be made: {error.strerror}")
    return cache


def _earlier(file: Path) -> Results:
    """Read what an earlier run has kept."""
    try:
        results = msgspec.json.decode(file.read_bytes(), type=Results)
    except OSError as error:
        _refuse(f"--from: {file} cannot be read: {error.strerror}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse(f"--from: {file} was not written by --json: {error}")
    if not results.measured:
        _refuse(f"--from: {file} holds nothing that was measured")
    return results


def _chosen(only: list[str] | None) -> list[Contest]:
    """Give the measurements that were asked for, all unless told otherwise."""
    names = [contest.name for contest in CONTESTS]
    for asked in only or ():
        if not asked or not any(name.startswith(asked) for name in names):
            _refuse(f"--only: no measurement is called {shlex.quote(asked)}; there are: {', '.join(names)}")
    return [contest for contest in CONTESTS if not only or contest.name.startswith(tuple(only))]


def _refuse(why: str) -> Never:
    print(f"{PROGRAM}: {why}", file=sys.stderr)
    sys.exit(REFUSED)


def shown(words: Sequence[str]) -> str:
    """Give the command line for the report, without its paths."""
    parts: list[str] = []
    value = ""
    for word in words:
        option, equals, _ = word.partition("=")
        if value:
            parts.append(value)
            value = ""
        elif equals and option in _PATHS:
            parts.append(f"{option}={_PATHS[option]}")
        else:
            parts.append(word)
            value = _PATHS.get(word, "")
    return f"{PROGRAM} {shlex.join(parts)}".rstrip()


def _bench(arguments: argparse.Namespace, folder: Path) -> Bench:
    quick = arguments.quick
    cache = folder
    if arguments.cache is not None:
        cache = arguments.cache.resolve()
    return Bench(
        folder=folder,
        cache=cache,
        rounds=1 if quick else arguments.rounds,
        seconds=1 if quick else arguments.seconds,
        warm_seconds=1 if quick else 2,
        memory_seconds=3 if quick else MEMORY_SECONDS,
        ops=arguments.ops or (50_000 if quick else OPS),
        results=Results(is_quick=quick, command=shown(sys.argv[1:])),
        json=arguments.json,
    )


def _allow_many_files(bench: Bench) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        bench.results.remark(f"the limit of open files was raised from {soft:,} to {wanted:,}")


async def _measure_or_be_told(bench: Bench, chosen: list[Contest]) -> bool:
    """Measure; False when SIGINT, SIGTERM or SIGHUP (its terminal is closed) came first.

    Either way all processes are gone, and all folders.
    """
    finished = False

    async def obey(task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(obey)
        await _measure(bench, chosen)
        finished = True
        nursery.cancel_scope.cancel()
    return finished


async def _measure(bench: Bench, chosen: list[Contest]) -> None:
    results = bench.results
    results.date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    results.rounds, results.seconds = bench.rounds, bench.seconds
    results.ops, results.memory_seconds = bench.ops, bench.memory_seconds
    results.machine = machine(bench.folder)
    kind = file_system(bench.folder)
    if kind in ("tmpfs", "ramfs"):
        results.remark(f"everything was written to {kind}: that is memory, and fdatasync does nothing there")
    has_seed = any(contest in (events.EVENT_C32, events.EVENT_C256) for contest in chosen)
    await find_tools(bench, with_seed=has_seed)
    results.versions = versions(bench.tools)
    for name, why in results.absent.items():
        bench.say(f"absent: {name}: {why}")
    if _lacks_wrk(bench, chosen):
        bench.say(f"without wrk most cannot be measured: this will end with exit status {WITHOUT_WRK}")
    if any(contest.name.startswith("history") for contest in chosen):
        results.machine["data of the full journal"] = f"{bench.ops:,} ops"
    for contest in chosen:
        await hold(bench, contest, CONTESTS[contest](bench))
        bench.keep()


def _lacks_wrk(bench: Bench, chosen: list[Contest]) -> bool:
    """Tell whether something was asked for that cannot be measured at all."""
    return "wrk" not in bench.tools and not all(contest.without_wrk for contest in chosen)


def _write(arguments: argparse.Namespace, results: Results) -> None:
    notes = NOTES.read_text(encoding="utf-8") if _is_whole(results) else ""
    text = report(results, list(CONTESTS), notes)
    target = arguments.report or (REPORT if _is_whole(results) else None)
    if target is None:
        print(text)
    else:
        target.write_text(text, encoding="utf-8")


def _is_whole(results: Results) -> bool:
    """Tell whether a run is fit for the documentation."""
    is_all = results.has_all(contest.name for contest in CONTESTS)
    return is_all and results.rounds >= ROUNDS_MIN and results.ops >= OPS and not results.is_quick


if __name__ == "__main__":
    sys.exit(main())
