"""`python -m tests.upgrades.make FOLDER`: have today's daemon write the directory that later versions must open.

Run it once for each new format, by the last commit that writes the old one, and keep what it makes: a directory that
was made anew shows nothing. It holds sealed and compacted segments, an active file, counters, learned things, and what
waits for a gateway (in all but ``v1``).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import trio

from tests.harness import Daemon, running_daemon
from tests.upgrades.events import EVENTS

CONFIG: Final = """
[journal]
segment_bytes_max = 6_000

[cycle]
seconds = 0.2
consolidate_every = 1

[gateway]
url = "http://127.0.0.1:9"  # nobody is there: what it is to be told waits
"""
SEGMENTS: Final = 2
WAIT_S: Final = 30.0


async def make(target: Path) -> None:
    """Write the directory.

    :raises FileExistsError: there is one already.
    """
    with tempfile.TemporaryDirectory() as folder:
        config, data = Path(folder) / "observer.toml", Path(folder) / "data"
        config.write_text(CONFIG)
        async with running_daemon(data, "--config", str(config)) as daemon:
            for event in EVENTS:
                await daemon.event(**event)
            await _has_learned(daemon, data)
            assert await daemon.stop() == 0
        (data / "_observer" / "lock").unlink()
        shutil.copytree(data, target)


async def _has_learned(daemon: Daemon, data: Path) -> None:
    segments = data / "_observer" / "segments"
    with trio.fail_after(WAIT_S):
        while (  # noqa: ASYNC110 - another process gives no signal of ours
            len(list(segments.glob("*.gz"))) < SEGMENTS
            or list(segments.glob("*.jsonl"))
            or not (await daemon.json("/failures"))["failures"]
            or not (await daemon.json("/playbook"))["entries"]
        ):
            await trio.sleep(0.1)


if __name__ == "__main__":
    trio.run(make, Path(sys.argv[1]))
