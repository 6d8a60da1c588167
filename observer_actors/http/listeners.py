"""The sockets that the daemon listens on: those that systemd hands over, else those that the settings say.

Socket activation (sd_listen_fds(3)) keeps them open while the daemon is restarted: connections wait in their backlog,
and none is refused. What is handed over replaces host, port and Unix socket of the settings.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog
import trio

from observer_actors.addresses import UNIX
from observer_actors.errors import AddressUnavailable, ConfigInvalid
from observer_actors.settings import ListenSettings

BACKLOG: Final = 1_024
ACCEPTED_AT_ONCE: Final = 64
"""Connections taken in at one turn of the event loop. Under load a turn takes a millisecond and more: taken in singly,
a thousand agents that come at once would wait for a second, with their first events sent already."""
ACCEPT_AGAIN_S: Final = 0.1
"""After an error of accept(2), of which the usual one is that too many files are open."""
UNREAD_S_MIN: Final = 30.0
"""The kernel cuts a client off that for so long has read, or confirmed, nothing of what was sent; after
`listen.answer_seconds_max`, where that is longer. One whose machine is gone would keep its place in `/tail` for a
quarter of an hour: what keeps that alive is too little to fill a buffer, and so we see nothing of it."""
FIRST_FD: Final = 3
"""SD_LISTEN_FDS_START."""
_NAMES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_NOT_HERE: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""A name may have an address of a kind that this machine does not have."""
_HINTS: Final = dict.fromkeys(_NOT_HERE, "it is no address of this machine; 0.0.0.0 and :: are all of its own") | {
    errno.EADDRINUSE: "is another daemon running? --port 0 takes a free port",
    errno.EACCES: "a port below 1024 is root's: take another, or have systemd's socket unit hand it over",
}

_UNIX_HINTS: Final = {
    errno.EADDRINUSE: "is another daemon running? Stop it, or give this one another path",
    errno.ENOENT: "make the folder of the socket first, for the daemon's user to write in",
    errno.ENOTDIR: "its path leads through something that is no folder",
    errno.EACCES: "the daemon's user must be allowed to write in the folder of the socket",
}


def open_listeners(settings: ListenSettings, *, needs_token: bool) -> list[socket.socket]:
    """Take over what systemd hands over, or bind and listen; port 0 takes a free one.

    What the environment says of handed-over sockets is taken out of it: no child shall take them for its own.

    :param needs_token: whoever comes needs a token: any address will do.
    :raises AddressUnavailable: taken, not ours, or unknown.
    :raises ConfigInvalid: nothing to listen on, a handed-over socket that the settings do not allow, or a file in the
        place of a Unix socket.
    """
    listeners = _handed_over()
    if listeners:
        for listener in listeners:
            _check(listener, is_guarded=needs_token or settings.insecure_no_auth)
    else:
        listeners = _bound(settings)
    for listener in listeners:
        if listener.family != socket.AF_UNIX:
            unread_s = max(UNREAD_S_MIN, settings.answer_seconds_max)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unread_s * 1_000))
    return listeners


def _bound(settings: ListenSettings) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    try:
        listeners += _bind_name(settings) if settings.tcp else []
        listeners += [_bind_unix(Path(settings.unix), int(settings.unix_mode, 8))] if settings.unix else []
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    if not listeners:
        raise ConfigInvalid("listen.tcp is off, and listen.unix is not set: nothing to listen on")
    return listeners


@contextmanager
def serving_sockets(settings: ListenSettings, *, needs_token: bool) -> Iterator[list[socket.socket]]:
    """Listen as `open_listeners` does for as long as the block runs; then close, and remove the Unix socket's file.

    A file that systemd made is left to systemd, also when the settings name the same one, and one that has taken the
    place of ours to whoever made it.
    """
    is_handed_over = os.environ.get("LISTEN_PID") == str(os.getpid())
    with ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in open_listeners(settings, needs_token=needs_token)]
        if settings.unix and not is_handed_over:
            stack.callback(_remove, Path(settings.unix), _identity(Path(settings.unix)))
        yield listeners


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tell a file from others that have its name before or after it; None where there is none.

    The time is part of it, for the number of an inode is given to the next file.
    """
    with suppress(FileNotFoundError):
        found = path.lstat()
        return found.st_dev, found.st_ino, found.st_mtime_ns
    return None


def _remove(path: Path, identity: tuple[int, int, int] | None) -> None:
    if identity == _identity(path):
        path.unlink(missing_ok=True)


async def accept(listener: socket.socket, take_in: Callable[[socket.socket], None]) -> None:
    """Accept all that wait at once, for ever; where that fails, again after a moment.

    :param listener: ours from here on.
    :param take_in: is given each connection, which never blocks.
    """
    is_failing = False
    with listener:
        listener.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPTED_AT_ONCE):
                try:
                    connection = _accepted(listener)
                except BlockingIOError:
                    break
                except OSError as error:
                    if not is_failing:
                        structlog.get_logger(actor="ingest").warning("accepting_failed", error=str(error))
                    is_failing = True
                    await trio.sleep(ACCEPT_AGAIN_S)
                    break
                is_failing = False
                take_in(connection)


def _accepted(listener: socket.socket) -> socket.socket:
    connection, _ = listener.accept()
    connection.setblocking(False)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def address_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Give the address that a listener answers at, as `observer_actors.addresses` reads it."""
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{listener.getsockname()}"
    numbers = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    host, port = socket.getnameinfo(listener.getsockname(), numbers)  # with its zone, as in fe80::1%eth0
    shown = f"[{host}]" if listener.family == socket.AF_INET6 else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def tls_context(settings: ListenSettings) -> ssl.SSLContext | None:
    """Give what TLS needs, None without it.

    :raises ConfigInvalid: the certificate or the key cannot be used.
    """
    if not settings.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for name, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        if path:
            _check_readable(f"listen.{name}", path)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key or None, password=_no_passphrase)
    except (OSError, ssl.SSLError) as error:
        raise ConfigInvalid(
            f"listen.tls_cert: {settings.tls_cert} and its key cannot be used: {error}",
            hint="PEM files; the key without a passphrase, readable by the daemon's user",
        ) from error
    return context


def _check_readable(name: str, path: str) -> None:
    if Path(path).is_fifo():
        raise ConfigInvalid(f"{name}: {path} is a pipe, which may have no end", hint="name a file")
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise ConfigInvalid(f"{name}: {path}: {error.strerror}") from error


def _no_passphrase() -> str:
    """Say that there is nobody to ask; OpenSSL would ask the terminal."""
    raise ConfigInvalid(
        "listen.tls_key has a passphrase, and nobody is there to give it",
        hint="openssl pkey -in key.pem -out plain.pem writes it without one: let nobody else read that",
    )


def _handed_over() -> list[socket.socket]:
    told = {name: os.environ.pop(name, "") for name in _NAMES}
    if told["LISTEN_PID"] != str(os.getpid()) or not told["LISTEN_FDS"].isdecimal():
        return []
    try:
        found = [socket.socket(fileno=fd) for fd in range(FIRST_FD, FIRST_FD + int(told["LISTEN_FDS"]))]
    except OSError as error:
        said = f"LISTEN_FDS is {told['LISTEN_FDS']}, and a descriptor from {FIRST_FD} on is no socket: {error.strerror}"
        raise ConfigInvalid(said, hint="use ListenStream= in a socket unit; without systemd unset it") from error
    for listener in found:
        listener.set_inheritable(False)
    return found


def _check(listener: socket.socket, *, is_guarded: bool) -> None:
    """Refuse what we cannot serve, and what the settings would refuse too."""
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.family not in families or listener.type != socket.SOCK_STREAM or not listens:
        raise ConfigInvalid(
            f"systemd hands over a socket that is none to listen on: {listener}",
            hint="use ListenStream= with an address or a path, and Accept=no",
        )
    if listener.family == socket.AF_UNIX:
        _refuse_abstract(listener)
        return
    host = listener.getsockname()[0]
    if not is_guarded and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise ConfigInvalid(
            f"systemd hands over {address_of(listener)}, which other machines reach, without tokens",
            hint="let ListenStream= say 127.0.0.1, or set auth.tokens_file",
        )


def _refuse_abstract(listener: socket.socket) -> None:
    """Refuse one without a file: no mode says who may connect, and no address of ours names it for the watchdog."""
    if isinstance(listener.getsockname(), bytes):
        raise ConfigInvalid(
            "systemd hands over an abstract Unix socket, which has no file",
            hint="use ListenStream= with a path, e.g. /run/observer-actors/http.sock",
        )


def _bind_name(settings: ListenSettings) -> list[socket.socket]:
    """Listen on each address of the name, all on one port; a kind of address that this machine lacks is left out."""
    bound: list[socket.socket] = []
    failed: OSError | None = None
    for family, address in _addresses(settings):
        port = bound[0].getsockname()[1] if bound else settings.port
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            _listen(listener, (address[0], port, *address[2:]))
            bound.append(listener)
        except OSError as error:
            listener.close()
            failed = error
            if error.errno not in _NOT_HERE:
                break
    if bound and (failed is None or failed.errno in _NOT_HERE):
        return bound
    assert failed is not None, "getaddrinfo gives an address or raises"
    for listener in bound:
        listener.close()
    raise AddressUnavailable(
        f"cannot listen on {settings.host} port {settings.port}: {failed.strerror}",
        hint=_HINTS.get(failed.errno or 0, ""),
    ) from failed


def _addresses(settings: ListenSettings) -> Iterator[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise AddressUnavailable(f"cannot find {settings.host!r}: {error.strerror}") from error
    yield from dict.fromkeys((family, address) for family, _, _, _, address in found)


def _listen(listener: socket.socket, address: tuple[Any, ...]) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(BACKLOG)


def _bind_unix(path: Path, mode: int) -> socket.socket:
    """Listen on a Unix socket; what a daemon that was killed left lying is removed, what another uses is not."""
    with ExitStack() as opened:
        try:
            if os.path.lexists(path) and not path.is_socket():
                said = f"listen.unix: {path} is there, and is no socket"
                raise ConfigInvalid(said, hint="move it away, or give another path")
            listener = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            if path.is_socket() and _is_dead(path):
                path.unlink(missing_ok=True)
            before = os.umask(0o777)  # nobody may connect before the mode is as it shall be
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            path.chmod(mode)
            listener.listen(BACKLOG)
        except OSError as error:  # of the looks too: a link may lead where this user may not look
            raise AddressUnavailable(
                f"cannot listen on {path}: {error.strerror or error}",
                hint=_UNIX_HINTS.get(error.errno or 0, ""),
            ) from error
        opened.pop_all()
    return listener


def _is_dead(path: Path) -> bool:
    """Tell a socket that nobody listens on from one that is another user's, of another kind, or has a full backlog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) in (errno.ECONNREFUSED, errno.ENOENT)
