"""Who is let in, as a table; the same over real sockets, both ways in: tests/daemon/test_doors.py."""

from __future__ import annotations

from typing import Final

import pytest

from observer_actors.http.guard import Guard, Peer
from observer_actors.tokens import ALL_SCOPES, Scope, Tokens

TCP: Final = Peer("192.0.2.1")
TOKEN: Final = {scope: f"a-token-for-{scope.value}-and-nothing-else" for scope in Scope}
TOKENS: Final = Tokens.read("\n".join(f"{scope.value} {scope.value} {token}" for scope, token in TOKEN.items()))
OPEN: Final = Guard(["observer.example"], None)
GUARDED: Final = Guard([], TOKENS)


def status(guard: Guard, method: str = "GET", path: str = "/stats", peer: Peer = TCP, /, **headers: str) -> int:
    named = {"host": "127.0.0.1:3800"} | {name.replace("_", "-"): value for name, value in headers.items()}
    refusal = guard.refusal_by_headers(peer, method, path, named)
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:3800",
        "[::1]:3800",
        "[fe80::1]",
        "192.0.2.7",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "observer.example:3800",
    ],
)
def test_a_host_that_is_ours(host: str) -> None:
    assert status(OPEN, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:3800",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "x@localhost",
        "[localhost]evil.example",
        "[127.0.0.1]evil.example",
        "[::1",
        "::1",
        "192.0.2.7%evil.example",
        "[fe80::1%25eth0]",
        "[fe80::1%evil]:3800",
    ],
)
def test_a_host_that_is_somebody_elses_is_misdirected(host: str) -> None:
    assert status(OPEN, host=host) == 421


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("observer.example:8443", "observer.example:8443"),
        ("observer.example:8443", "observer.example"),
        ("Observer.Example.", "observer.example:3800"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("my_service", "my_service:3800"),
    ],
)
def test_a_name_is_ours_however_it_is_written_in_the_settings(written: str, host: str) -> None:
    assert status(Guard([written], None), host=host) == 200


def test_a_foreign_host_is_told_as_the_settings_would_take_it() -> None:
    refusal = OPEN.refusal(TCP, "POST", "/event", "Other.example:8443", "")
    assert refusal is not None
    assert str(refusal) == "'other.example' is not a name of this daemon"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": "http://127.0.0.1:3800"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, 200),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}, 403),
        ({"sec_fetch_site": "same-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "frame"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 403),
        ({"sec_fetch_site": "same-origin", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}, 200),
    ],
)
def test_a_page_of_another_site_is_refused_and_a_link_may_be_followed(headers: dict[str, str], expected: int) -> None:
    assert status(OPEN, **headers) == expected
    if headers.get("sec_fetch_site") == "cross-site":
        assert status(OPEN, "POST", "/event", **headers) == 403
        assert status(OPEN, "GET", "/advice", **headers) == 403


@pytest.mark.parametrize(
    ("referer", "expected"),
    [
        ("http://127.0.0.1:3800", 200),
        ("HTTP://127.0.0.1:3800/stats?a=http://evil.example", 200),
        ("http://127.0.0.1:9999/", 403),
        ("http://evil.example/http://127.0.0.1:3800", 403),
        ("http://evil.example?http://127.0.0.1:3800", 403),
        ("about:blank", 403),
    ],
)
def test_a_page_of_another_site_leaves_no_trace_where_the_browser_says_only_which_page_it_is(
    referer: str, expected: int
) -> None:
    assert status(OPEN, "GET", "/advice", referer=referer) == expected
    assert status(OPEN, "GET", "/stats", referer=referer) == 200


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/event", Scope.INGEST),
        ("POST", "/events", Scope.INGEST),
        ("GET", "/stats", Scope.READ),
        ("HEAD", "/ops", Scope.READ),
        ("GET", "/event", Scope.READ),
        ("POST", "/failures/1", Scope.ADMIN),
        ("DELETE", "/stats", Scope.ADMIN),
    ],
)
def test_each_route_takes_a_scope_and_admin_has_all(method: str, path: str, scope: Scope) -> None:
    for held, token in TOKEN.items():
        expected = 200 if held in (scope, Scope.ADMIN) else 403
        assert status(GUARDED, method, path, authorization=f"Bearer {token}") == expected
    for wrong in ("", "Bearer", "Bearer nobody", f"Basic {TOKEN[scope]}", TOKEN[scope]):
        assert status(GUARDED, method, path, authorization=wrong) == 401
    assert status(OPEN, method, path) == 200


def test_health_and_readiness_are_open() -> None:
    assert status(GUARDED, "GET", "/health") == status(GUARDED, "GET", "/ready") == 200
    assert status(GUARDED, "GET", "/health", host="evil.example") == 421


def test_over_a_unix_socket_the_user_counts_and_the_host_does_not() -> None:
    ourselves, other = Peer("", ALL_SCOPES), Peer("", frozenset({Scope.READ}))
    assert status(GUARDED, "POST", "/event", ourselves, host="anything") == 200
    assert status(GUARDED, "GET", "/stats", other, host="anything") == 200
    assert status(GUARDED, "POST", "/event", other) == 403
    assert status(GUARDED, "POST", "/event", other, authorization=f"Bearer {TOKEN[Scope.INGEST]}") == 200
    assert status(GUARDED, "GET", "/stats", other, authorization=f"Bearer {TOKEN[Scope.INGEST]}") == 200
    refusal = GUARDED.refusal(other, "POST", "/event", "", "Bearer nobody")
    assert str(refusal) == "this user may not do that, and the token is not known: it takes the scope ingest"
    refusal = GUARDED.refusal(other, "POST", "/failures/1", "", f"Bearer {TOKEN[Scope.INGEST]}")
    assert str(refusal) == "the token 'ingest' may not do that: it takes the scope admin"


def test_what_is_refused_is_told_without_the_token() -> None:
    refusal = GUARDED.refusal(TCP, "POST", "/event", "localhost", "Bearer wrong-token-that-nobody-has")
    assert refusal is not None
    assert "wrong-token" not in f"{refusal} {refusal.hint}"
