"""What is no proper request: refused by whoever reads it, without a traceback, and nobody else notices."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from observer_actors.daemon import open_daemon
from observer_actors.http.app import create_app
from observer_actors.http.wire import read_head
from observer_actors.logs import configure_logs
from observer_actors.settings import ListenSettings, Settings
from observer_actors.supervision import ActorStatistics
from tests.daemon.served import Served, served

HEAD = b"Host: localhost\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("wire")) as running:
        yield running


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found, answer
    return int(found[1])


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"POST /event HTTP/9.9\r\n" + HEAD + b"\r\n", 505),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /\xff HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET /health HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 431),
        (b"POST /event HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}", 431),
        (b"POST /event HTTP/1.1\r\n" + HEAD + b"Content-Length: -2\r\n\r\n{}", 400),
        (b"POST /event HTTP/1.1\r\n" + HEAD + b"Content-Length: 2, 3\r\n\r\n{}", 400),
        (b"POST /event HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (b"POST /event HTTP/1.1\r\n" + HEAD + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n", 400),
        (b"POST /event HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /event HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /event HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}", 501),
        (b"POST /event HTTP/1.1\r\nBad Header: x\r\n" + HEAD + b"\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a b/<>\r\nConnection: close\r\n\r\n", 421),
    ],
)
def test_a_malformed_request_is_refused_and_the_connection_closed(
    daemon: Served, request_bytes: bytes, expected: int
) -> None:
    answer = daemon.exchange(request_bytes)
    assert status(answer) == expected
    assert b'"error":"' in answer
    assert b"Traceback" not in answer
    assert b"hypercorn" not in answer.lower()
    assert daemon.json("/health")["status"] == "ok"
    assert not [line for line in daemon.log.lines if line["level"] in {"error", "warning"}]


@pytest.mark.parametrize(
    ("header", "is_kept"),
    [(b"", True), (b"Authorization: Bearer a-token\r\n", False), (b"TraceParent: 00-1\r\n", False)],
)
def test_a_head_is_remembered_but_not_what_holds_a_token_or_comes_but_once(header: bytes, *, is_kept: bool) -> None:
    head = b"POST /event HTTP/1.1\r\nHost: localhost\r\n" + header + b"Content-Length: 2\r\n\r\n"
    one, again = (read_head(head, body_bytes_max=2, head_bytes_max=1_024) for _ in range(2))
    assert one == again
    assert (one is again) is is_kept


@pytest.mark.parametrize("line", [b"GET /health", b"POST /event"])
@pytest.mark.parametrize(("headers", "expected"), [(100, 200), (101, 431), (3_000, 431)])
def test_a_request_of_more_than_a_hundred_headers_is_refused(
    daemon: Served, line: bytes, headers: int, expected: int
) -> None:
    usual = HEAD + (b"Content-Length: 2\r\n" if line.startswith(b"POST") else b"")
    others = b"a:\r\n" * (headers - usual.count(b"\n"))
    answer = daemon.exchange(line + b" HTTP/1.1\r\n" + usual + others + b"\r\n" + b"{}" * line.startswith(b"POST"))
    assert status(answer) == expected
    assert (b'"error":"the head of a request has at most 100 headers"' in answer) is (expected == 431)


@pytest.mark.parametrize("ends", [b"", b"\r\n\r\n"], ids=["unfinished", "whole"])
@pytest.mark.parametrize("size", [20_000, 100_000])
def test_a_head_that_is_too_long_is_told_the_limit(daemon: Served, size: int, ends: bytes) -> None:
    answer = daemon.exchange(b"GET /health HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * size + ends)
    assert status(answer) == 431
    assert b'"error":"the head of a request holds at most 16,384 bytes"' in answer
    assert b'"limit":"listen.head_bytes_max"' in answer


@pytest.mark.parametrize("target", [b"/event", b"/event?"])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_the_connection_is_closed_when_the_client_asks_for_it(daemon: Served, target: bytes, version: bytes) -> None:
    answer = daemon.exchange(b"POST " + target + b" " + version + b"\r\n" + HEAD + b"Content-Length: 2\r\n\r\n{}")
    assert status(answer) == 200
    assert answer.count(b'"accepted":true') == 1


@pytest.mark.parametrize("path", [b"/health", b"/openapi.json", b"/metrics", b"/nothing"])
def test_an_old_client_that_reads_to_the_end_gets_one(daemon: Served, path: bytes) -> None:
    head, _, body = daemon.exchange(b"GET " + path + b" HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    announced = re.search(rb"content-length: (\d+)", head)
    assert announced
    assert len(body) == int(announced[1])


@pytest.mark.parametrize(
    "rest", [b"2\r\n{}\r\n0\r\nX: %s\r\n\r\n", b"2;%s\r\n{}\r\n0\r\n\r\n"], ids=["trailer", "chunk"]
)
def test_what_is_too_large_behind_the_head_is_not_called_the_head(daemon: Served, rest: bytes) -> None:
    head = b"POST /event HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = daemon.exchange(head + rest % (b"x" * 100_000))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"trailers, or the line of a chunk, hold at most 16,384 bytes" in answer
    assert b'"limit":"listen.head_bytes_max"' in answer


def test_requests_in_a_row_are_answered_in_order_whichever_way_each_takes(daemon: Served) -> None:
    posts = [b'{"endpoint":"%d"}' % number for number in range(6)]
    plain, web = b"POST /event HTTP/1.1\r\n", b"POST /event?a=1 HTTP/1.1\r\n"
    lines = [plain, plain, web, plain, web, plain]
    requests = [
        line + b"Host: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for line, body in zip(lines, posts, strict=True)
    ]
    answer = daemon.exchange(b"".join(requests) + b"GET /ops?limit=6 HTTP/1.1\r\n" + HEAD + b"\r\n")
    seqs = [int(seq) for seq in re.findall(rb'"accepted":true,"ring_size":\d+,"seq":(\d+)', answer)]
    assert seqs == list(range(seqs[0], seqs[0] + 6))
    page = json.loads(answer[answer.rindex(b'{"ops":') :])
    assert [op["endpoint"] for op in page["ops"]] == ["5", "4", "3", "2", "1", "0"]


def test_an_idle_connection_does_not_delay_the_stop(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        plain, web = daemon.connect(), daemon.connect()
        with plain, web:
            plain.sendall(b"POST /event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
            web.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert status(plain.recv(65_536)) == status(web.recv(65_536)) == 200
            daemon.process.terminate()
            assert daemon.process.wait(4) == 0


async def test_a_fault_of_ours_is_a_problem_without_a_word_of_it_and_a_line_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Sequence[ActorStatistics]:
        raise ZeroDivisionError("a secret")

    with ExitStack() as stack:
        configure_logs("info")
        daemon = stack.enter_context(open_daemon(Settings(data_dir=tmp_path, listen=ListenSettings(port=0))))
        app = create_app(dataclasses.replace(daemon.views, tree=broken))
        response = await app.test_client().get("/actors?x=\x1b[31m")
        body = await response.get_data(as_text=True)
        assert (response.status_code, response.content_type) == (500, "application/problem+json")
        assert json.loads(body)["error"] == "internal error; see the log"
        assert "secret" not in body
        await daemon.learned.close()
    (line,) = (json.loads(line) for line in capfd.readouterr().err.splitlines() if "request_failed" in line)
    assert line.items() >= {"event": "request_failed", "actor": "ingest", "level": "error"}.items()
    assert (line["method"], line["path"]) == ("GET", "/actors")
    assert "ZeroDivisionError: a secret" in line["exception"]
