"""The local model: llama.cpp in a child process (`models.local`), watched as an actor, spoken to like any other server.

A child that dies crashes the actor, which the supervisor starts again, later and later; questions that come meanwhile
wait for as long as an answer may take, and then fail.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.models import ChatReply, ModelFailed, OpenAIModel
from observer_actors.settings import DiagnosisSettings
from observer_actors.supervision import Life

LOAD_S: Final = 300.0
"""A model of some gigabytes from a slow disk."""
LINE_BYTES_MAX: Final = 4_096
LOG_LINES_KEPT: Final = 5


class LocalModel:
    """The actor, and the model as the consultant asks it."""

    def __init__(self, client: httpx.AsyncClient, settings: DiagnosisSettings, *, log: FilteringBoundLogger) -> None:
        self.name: Final = Path(settings.model).name
        self._client = client
        self._settings = settings
        self._log = log
        self._server: OpenAIModel | None = None
        self._loaded = trio.Event()
        self._turn = trio.Lock()
        """The child answers one question at a time: the limit of another does not run while it waits for that."""
        self._last_lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)

    async def chat(self, system: str, prompt: str, schema: Mapping[str, Any]) -> ChatReply:
        """Ask the child; waits while it is being loaded.

        :raises ModelFailed: there is none, or it gave no answer.
        """
        with trio.move_on_after(self._settings.timeout_seconds):
            await self._loaded.wait()
        async with self._turn:
            if self._server is None:
                raise ModelFailed(f"{self.name} is not loaded")
            return await self._server.chat(system, prompt, schema)

    async def run(self, life: Life) -> None:
        """Serve as an actor."""
        life.ready()  # not when it is loaded: nothing else waits for a model
        life.at("loading")
        command = [sys.executable, "-m", "observer_actors.models.local", self._settings.model]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_last_lines, process)
                await self._serve(process, life)
        finally:
            self._server = None
            if self._loaded.is_set():  # else whoever waits for this one is there for the next
                self._loaded = trio.Event()
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
        raise ModelFailed(f"the model's process ended with status {process.returncode}: {' '.join(self._last_lines)}")

    async def _serve(self, process: trio.Process, life: Life) -> None:
        with trio.fail_after(LOAD_S):
            url = await self._address(process)
        if url:
            settings = msgspec.structs.replace(self._settings, url=f"{url}/v1", model=self.name)
            self._server = OpenAIModel(self._client, settings)
            self._loaded.set()
            self._log.info("model_loaded", model=self.name, url=url, pid=process.pid)
            life.at("serving")
            life.progress()
        await process.wait()

    async def _address(self, process: trio.Process) -> str:
        """Read the line in which the child tells its address; "" when it ends without one."""
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX:
            more = await process.stdout.receive_some()
            if not more:
                return ""
            line += more
        return line.decode(errors="replace").strip()

    async def _keep_last_lines(self, process: trio.Process) -> None:
        """Drain what llama.cpp says, and keep the end of it for the error."""
        assert process.stderr is not None
        self._last_lines.clear()
        rest = ""
        async for chunk in process.stderr:
            *lines, rest = (rest + chunk.decode(errors="replace"))[-LINE_BYTES_MAX:].split("\n")
            self._last_lines.extend(line.strip() for line in lines if line.strip())
