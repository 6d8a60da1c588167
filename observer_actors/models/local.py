"""A process that serves a GGUF file through llama.cpp: `python -m observer_actors.models.local FILE`.

It is a child of the daemon, so that whatever a model does to it (memory, a crash in native code) stays in it. Its whole
protocol: it listens on a free port of loopback, writes the address as one line to standard output when the model is
loaded, and ends when its standard input does, which is when the daemon has ended, however that came about.

It needs the extra `local-llm` (xllamacpp: a wheel, nothing is compiled).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

from observer_actors.errors import INSTALL_EXTRA
from observer_actors.models.model import CONTEXT_TOKENS

EXIT_UNUSABLE: Final = 78
"""EX_CONFIG: no such file, or xllamacpp is not installed. Trying again does not help."""
THREADS_MAX: Final = 4


def main() -> None:
    """Serve the file that is named on the command line."""
    _, file = sys.argv
    if not os.path.isfile(file):  # noqa: PTH113 - a path as it was given
        sys.exit(_unusable(f"{file} is no file"))
    try:
        llama: Any = importlib.import_module("xllamacpp")
    except ModuleNotFoundError:
        sys.exit(_unusable(f"xllamacpp is not installed; {INSTALL_EXTRA.format('local-llm')}"))
    serve(llama, file)


def serve(llama: Any, file: str) -> None:  # noqa: ANN401 - a module without types
    """Load the model, tell the address, and stay until standard input ends."""
    parameters = llama.CommonParams()
    parameters.model.path = file
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = max(1, min(THREADS_MAX, (os.cpu_count() or 2) // 2))
    parameters.port = 0
    server = llama.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # llama.cpp's threads need no farewell, and have been seen to wait for one


def _unusable(what: str) -> int:
    print(what, file=sys.stderr)
    return EXIT_UNUSABLE


if __name__ == "__main__":
    main()
