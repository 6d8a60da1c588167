"""One run: its options, the tools that are there, its folder, and what it has found so far."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.contest import Unmeasured
from benchmarks.results import Results
from tests.parity.bun import Unavailable, installed_bun
from tests.parity.seed import seed_program

ROOT: Final = Path(__file__).parents[1]
_PROGRAMS: Final = {
    "wrk": "the load generator of most measurements",
    "redis-server": "a rival",
    "redis-benchmark": "the load generator for Redis",
}


@dataclass
class Bench:
    """What every measurement gets.

    ``folder`` is on a disk and removed at the end; ``cache`` keeps the journal of ``ops`` ops from run to run, or is
    in ``folder``.
    """

    folder: Path
    cache: Path
    rounds: int
    seconds: int
    warm_seconds: int
    memory_seconds: int
    ops: int
    results: Results
    tools: dict[str, Path] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    json: Path | None = None
    """Where everything measured so far is kept, should the run not end well."""
    full_journal: Path | None = None
    """The data directory with ``ops`` ops, once it is made."""
    begun_journal: bool = False
    """Its making was begun: should it not come to an end, nobody begins anew."""

    def say(self, text: str) -> None:
        """Tell whoever waits how far we are."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        print(f"[{minutes:3d}:{seconds:02d}] {text}", file=sys.stderr, flush=True)

    def keep(self) -> None:
        """Write what has been measured so far, where that is wanted; beside what is there, until it is whole."""
        if self.json is None:
            return
        beside = self.json.with_name(f".{self.json.name}.new")
        try:
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(self.results), indent=1) + b"\n")
            beside.replace(self.json)
        except OSError as error:
            self.results.remark(f"--json: {self.json.name} could not be written: {error.strerror}")
            self.say(self.results.remarks[-1])

    def tool(self, name: str) -> Path:
        """Give the path of a program.

        :raises Unmeasured: it is absent.
        """
        if name not in self.tools:
            raise Unmeasured(f"{name} is absent")
        return self.tools[name]

    def note_command(self, name: str, command: Sequence[str | Path]) -> None:
        """Keep a command line for the report, the first of its name; temporary folders are shown as DIR."""
        shown = shlex.join(map(str, command)).replace(str(self.folder), "DIR").replace(f"{ROOT}/", "")
        self.results.commands.setdefault(name, shown)


async def find_tools(bench: Bench, *, with_seed: bool) -> None:
    """Look for the programs that take part; note those that are absent, and why."""
    for name, purpose in _PROGRAMS.items():
        found = shutil.which(name)
        if found:
            bench.tools[name] = Path(found)
        else:
            bench.results.absent[name] = f"not installed; it is {purpose}"
    if not with_seed:
        return
    try:
        bench.tools["seed"] = seed_program()
        bench.tools["bun"] = await installed_bun(ROOT / ".parity")
    except Unavailable as absent:
        bench.results.absent["the seed under Bun"] = str(absent)
