"""Where the gateway, the daemon and the data directory are, unless a caller says otherwise; and the token.

Read from the environment at each call: a program may set it after the import. An empty variable counts as unset, and
blanks around one are none of it: a secret that is made with `echo` ends with a newline. An address that is no text is
taken as one: that it leads nowhere is told where it is used, as of any other.
"""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from urllib.parse import unquote, urlsplit

from observer_actors.addresses import SERVICE_LINKS, Address, check_token
from observer_actors.client._texts import text
from observer_actors.errors import UNEXPANDED, WHOLE_PATH, ConfigInvalid


def gateway_base(given: object) -> str:
    """Give the gateway's base URL: as given, else GATEWAY_URL, else the seed's default."""
    return text(given) or _variable("GATEWAY_URL") or "http://localhost:3700"


def observer_base(given: object) -> str:
    """Give the daemon's base URL: as given, else OBSERVER_URL, else this machine at OBSERVER_PORT or 3800.

    What Kubernetes sets in OBSERVER_PORT for a Service named ``observer`` is passed over, as the daemon does.
    """
    port = _variable("OBSERVER_PORT") or "3800"
    port = "3800" if port.startswith(SERVICE_LINKS) else port
    return text(given) or _variable("OBSERVER_URL") or f"http://127.0.0.1:{port}"


def daemon_headers(where: Address) -> dict[str, str]:
    """Give what each request to the daemon says beside: who asks, by OBSERVER_TOKEN, else by the user in its address.

    :raises TokenInvalid: the token is none that can be sent; does not tell it.
    """
    token = _variable("OBSERVER_TOKEN")
    check_token(token, "OBSERVER_TOKEN")
    user, _, password = urlsplit(where.base).netloc.rpartition("@")[0].partition(":")
    basic = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode() if user or password else ""
    said = f"Bearer {token}" if token else f"Basic {basic}" if basic else ""
    return where.headers | ({"Authorization": said} if said else {})


def data_directory(given: str | os.PathLike[str] | None) -> Path:
    """Give the data directory: as given, else OBSERVER_DATA_DIR, else ``data`` in the working directory.

    :raises ConfigInvalid: it begins with ~, and would be a folder of that name.
    """
    path = Path(given or _variable("OBSERVER_DATA_DIR") or "data")
    if str(path).startswith("~"):
        raise ConfigInvalid(f"{'data_dir' if given else 'OBSERVER_DATA_DIR'}: {UNEXPANDED}", hint=WHOLE_PATH)
    return path


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
