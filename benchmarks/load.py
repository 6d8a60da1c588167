"""The load generators: wrk for HTTP, redis-benchmark for Redis. Both as many requests as they can, closed loop."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

import msgspec
import trio
from msgspec import Struct

from benchmarks.bench import Bench
from benchmarks.payload import BATCH_EVENTS, COUNTED, RUN, RUN_EVENTS, SALT, batches, events, reported
from benchmarks.rivals import Server, fresh_folder, redis_says
from tests.harness import own_environment
from tests.parity.program import ProgramFailed, end_of, started
from tests.processes import TICK_SECONDS, cpu_seconds, note_cpu

LATE_SECONDS_MAX: Final = 60.0
"""A load generator that is this late does not come back."""
TIMEOUT_SECONDS: Final = 30
"""Longer than the daemon ever keeps a caller waiting: what is slow shall count as slow, not vanish as a timeout."""
REDIS_PROBE: Final = 5_000
"""Turns of all connections' pipelines, or single commands, of the first warm-up. It tells how many fit into the time:
redis-benchmark counts, and does not look at a clock."""
REDIS_PROBE_MAX: Final = 100_000

_SCRIPT: Final = """\
local made, turn, sent = {{}}, 0, 0
local function parts_of(text)
  local parts, from = {{}}, 1
  while true do
    local at, to = text:find("{hole}", from)
    parts[#parts + 1] = text:sub(from, (at or 0) - 1)
    if not at then return parts end
    parts[#parts + 1] = text:sub(at, at)
    from = to + 1
  end
end
function init(args)
  for n = 0, {count} - 1 do
    local file = assert(io.open("{folder}/body-" .. n, "rb"))
    made[n] = parts_of(wrk.format("POST", "{path}", {{["Content-Type"] = "application/json"}}, file:read("*a")))
    file:close()
  end
end
function request()
  turn = (turn + 1) % {count}
  local parts = made[turn]
  if #parts == 1 then return parts[1] end
  local filled = {{}}
  for n = 1, #parts, 2 do
    filled[n] = parts[n]
    if parts[n + 1] == "@" then
      sent = sent + 1
      filled[n + 1] = string.format("%012d", sent)
    elseif parts[n + 1] then
      filled[n + 1] = string.format("%012d", math.floor(sent / {run_events}))
    end
  end
  return table.concat(filled)
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {{"requests":%d,"us":%d,"not_2xx":%d,"broken":%d,"p50_us":%d,"p99_us":%d,"max_us":%d}}\\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


@dataclass(frozen=True)
class Load:
    """What is sent in a request."""

    path: str
    bodies: tuple[bytes, ...]
    events: int
    """Events in one body."""


SINGLES: Final = Load("/event", tuple(events()), 1)
BATCHES: Final = Load("/events", tuple(batches()), BATCH_EVENTS)
REPORTED: Final = Load("/event", tuple(events(reported)), 1)
REPORTED_BATCHES: Final = Load("/events", tuple(batches(reported)), BATCH_EVENTS)
"""Both as `Observer` sends them."""


class _Said(Struct):
    """What our script has wrk say at the end."""

    requests: int
    us: int
    not_2xx: int
    broken: int
    p50_us: int
    p99_us: int
    max_us: int


async def press(
    bench: Bench, server: Server, load: Load, connections: int, *, seconds: int = 0, warm: bool = True
) -> Mapping[str, float]:
    """Warm up, then send as much as the server takes; give the figures.

    ``per_second`` counts events in answers of status 2xx only.

    :param seconds: how long; the run's usual time unless given.
    """
    if warm:
        await warm_up(bench, server, load, connections)
    cpu, began = cpu_seconds(server.pid), time.perf_counter()
    said, generators_cpu = await _wrk(bench, server, load, connections, seconds or bench.seconds)
    took = time.perf_counter() - began
    used = cpu_seconds(server.pid) - cpu
    acknowledged = (said.requests - said.not_2xx) * load.events
    return {
        "per_second": acknowledged / (said.us / 1e6),
        "generator_max": acknowledged / max(generators_cpu, TICK_SECONDS),
        "cpu_us": used / max(1, acknowledged) * 1e6,
        "p50_ms": said.p50_us / 1e3,
        "p99_ms": said.p99_us / 1e3,
        "server_cpu": used / took,
        "generator_cpu": generators_cpu / took,
        "acknowledged": float(acknowledged),
        "not_2xx": float(said.not_2xx),
        "broken": float(said.broken),
    }


async def warm_up(bench: Bench, server: Server, load: Load, connections: int) -> None:
    """Send what `press` sends, and count nothing."""
    await _wrk(bench, server, load, connections, bench.warm_seconds, noted=False)


async def _wrk(
    bench: Bench, server: Server, load: Load, connections: int, seconds: int, *, noted: bool = True
) -> tuple[_Said, float]:
    """Run wrk, and give what it counted and its processor time."""
    async with fresh_folder(bench, "wrk") as folder:
        script = write_script(folder, load)
        command = [
            str(bench.tool("wrk")),
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            f"{TIMEOUT_SECONDS}s",
            "-s",
            str(script),
            server.url,
        ]
        if noted:
            bench.note_command(f"wrk, {load.path}, c={connections}", command)
        text, cpu = await run_to_its_end(command, folder, seconds + LATE_SECONDS_MAX)
    found = re.search(r"^RESULT (\{.*\})$", text, re.MULTILINE)
    if found is None:
        raise ProgramFailed(f"wrk said no result: {text[-500:]}")
    return msgspec.json.decode(found[1], type=_Said), cpu


def write_script(folder: Path, load: Load) -> Path:
    """Write what wrk is to send, and give the script."""
    salt = token_hex(len(SALT) // 2).encode()
    for number, body in enumerate(load.bodies):
        (folder / f"body-{number}").write_bytes(body.replace(SALT.encode(), salt))
    script = folder / "load.lua"
    hole, count = f"[{COUNTED[0]}{RUN[0]}]" * len(COUNTED), len(load.bodies)
    text = _SCRIPT.format(folder=folder, path=load.path, count=count, hole=hole, run_events=RUN_EVENTS)
    script.write_text(text, encoding="utf-8")
    return script


async def press_redis(
    bench: Bench, server: Server, *, connections: int, pipeline: int, threads: int
) -> Mapping[str, float]:
    """Send one event with XADD again and again, ``pipeline`` commands at once on each connection."""

    async def send(count: int) -> tuple[float, float]:
        options = ["-p", server.port, "-c", connections, "-P", pipeline, "-n", count]
        options += ["--threads", threads] if threads > 1 else []
        return await _redis_benchmark(bench, list(map(str, options)))

    probed, _ = await send(min(REDIS_PROBE * pipeline, REDIS_PROBE_MAX))
    rate, _ = await send(max(REDIS_PROBE, int(probed * bench.warm_seconds)))
    count = max(REDIS_PROBE, int(rate * bench.seconds))
    before = int((await redis_says(server.port, "XLEN ops")).removeprefix(":"))
    cpu, began = cpu_seconds(server.pid), time.perf_counter()
    rate, generators_cpu = await send(count)
    took = time.perf_counter() - began
    used = cpu_seconds(server.pid) - cpu
    stored = int((await redis_says(server.port, "XLEN ops")).removeprefix(":")) - before
    if stored < count:
        raise ProgramFailed(f"Redis holds {stored:,} of {count:,} entries")
    return {
        "per_second": rate,
        "generator_max": count / max(generators_cpu, TICK_SECONDS),
        "cpu_us": used / count * 1e6,
        "server_cpu": used / took,
        "generator_cpu": generators_cpu / took,
        "acknowledged": float(count),
    }


async def _redis_benchmark(bench: Bench, options: Sequence[str]) -> tuple[float, float]:
    command = [str(bench.tool("redis-benchmark")), *options, "-q"]
    command += ["XADD", "ops", "*", "op", SINGLES.bodies[1].decode()]
    bench.note_command(f"redis-benchmark {' '.join([*options[2:6], *options[8:]])}", command)
    async with fresh_folder(bench, "redis-benchmark") as folder:
        text, cpu = await run_to_its_end(command, folder, bench.seconds * 10 + LATE_SECONDS_MAX)
    found = re.findall(r"([\d.]+) requests per second", text)
    if not found:
        raise ProgramFailed(f"redis-benchmark said no result: {text[-500:]}")
    return float(found[-1]), cpu


async def run_to_its_end(
    command: Sequence[str], folder: Path, seconds_max: float, *, cwd: Path | None = None
) -> tuple[str, float]:
    """Run a program to its end; give what it said and its processor time.

    :param folder: what it says goes there, and it runs there unless ``cwd`` is given.
    :raises ProgramFailed: it failed, or did not end in time.
    """
    log = folder / "said"
    async with (
        started(command, folder=cwd or folder, env=own_environment(), log=log) as process,
        note_cpu(process.pid) as used,
    ):
        with trio.move_on_after(seconds_max):
            code = await process.wait()
            if code:
                raise ProgramFailed(f"{Path(command[0]).name} exited with {code}: {end_of(log)}")
            return log.read_text(encoding="utf-8", errors="replace"), used()
    raise ProgramFailed(f"{Path(command[0]).name} did not end within {seconds_max:.0f} s")
