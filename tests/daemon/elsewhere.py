"""The command line as it is, over a daemon that keeps what it learns on another file system than its journal.

Run it with ``python -m``; `PATH_VARIABLE` says where. A link in the data directory, which would do, is refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from observer_actors import cli
from observer_actors.actors import learned

PATH_VARIABLE: Final = "OBSERVER_TEST_LEARNED"

if __name__ == "__main__":
    learned.LEARNED_PATH = Path(os.environ[PATH_VARIABLE])  # type: ignore[attr-defined]  # final, but for this
    cli.main()
