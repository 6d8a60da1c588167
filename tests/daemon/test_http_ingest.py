"""`POST /event` and `POST /events` over real sockets, on either way in: the front door's own, and Hypercorn's."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from observer_actors.config import LEAVES
from observer_actors.http.intake import LABELS_LOGGED_MAX
from observer_actors.op import decode_op
from observer_actors.settings import INT_MAX
from tests.daemon.served import Served, served

BODY_BYTES_MAX: Final = 300_000
PLAIN_BYTES_MAX: Final = 600_000
EVENTS_MAX: Final = 500
START: Final = b"POST /event HTTP/1.1\r\nHost: localhost\r\n"
CONFIG: Final = f"""
[listen]
body_bytes_max = {BODY_BYTES_MAX}
decompressed_bytes_max = {PLAIN_BYTES_MAX}
batch_events_max = {EVENTS_MAX}
request_seconds_max = 1.0
"""
SCARCE_ROOM: Final = """
[listen]
body_bytes_max = 100000
bodies_bytes_max = 100000
[admission]
wait_seconds_max = 0.2
"""
GZIP: Final = {"Content-Encoding": "gzip"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("ingest"), CONFIG) as running:
        yield running


@dataclass
class Way:
    """One way in: a target with a query is not the front door's business."""

    daemon: Served
    client: httpx.Client
    query: str

    def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path + self.query, content=body, headers=named)


@pytest.fixture(params=["front door", "hypercorn"])
def way(daemon: Served, request: pytest.FixtureRequest) -> Way:
    if request.param == "front door":
        return Way(daemon, daemon.ingest, "")
    return Way(daemon, daemon.client, "?")


def lines(*events: object) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def assert_problem(response: httpx.Response, status: int, *, field: str = "", says: str = "") -> Any:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert says in problem["error"]
    assert problem.get("field", "") == field
    assert "Traceback" not in response.text
    return problem


# ------------------------------------------------------------------------------------------- one event


def test_an_event_is_answered_with_its_seq_and_is_on_disk_then(way: Way) -> None:
    response = way.post("/event", b'{"endpoint":"first","ok":true}')
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert answer == {"accepted": True, "ring_size": answer["seq"], "seq": answer["seq"]}
    on_disk = way.daemon.data_dir / "_observer" / "ops.jsonl"
    last = decode_op(on_disk.read_bytes().splitlines()[-1])
    assert (last.seq, last.endpoint, last.success) == (answer["seq"], "first", True)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "nonsense;;", "a/b"])
def test_the_content_type_does_not_matter(way: Way, content_type: str) -> None:
    assert way.post("/event", b'{"ok":true}', Content_Type=content_type).status_code == 200
    assert way.post("/events", b'{"ok":true}\n', Content_Type=content_type).status_code == 200


@pytest.mark.parametrize("body", [b"", b"nope", b"{", b'{"city":"\xff"}', b"[{}]", b"null"])
def test_a_body_that_is_no_object_is_a_problem(way: Way, body: bytes) -> None:
    problem = assert_problem(way.post("/event", body), 400)
    assert problem["hint"]


def test_a_field_of_a_wrong_type_is_named(way: Way) -> None:
    assert_problem(way.post("/event", b'{"city":5}'), 400, field="city", says="city: expected `str")


def test_an_unknown_source_is_said_in_the_answer(way: Way) -> None:
    answer = way.post("/event", b'{"source":"elsewhere"}').json()
    assert answer["notes"] == ['source: "elsewhere" is not a known source; kept as scenario']


def test_unknown_sources_are_logged_once_each_and_only_so_many_of_them(tmp_path: Path) -> None:
    with served(tmp_path) as daemon:
        for number in range(LABELS_LOGGED_MAX + 10):
            for _ in range(2):
                assert daemon.event(source=f"s{number}")["notes"]
    assert len(daemon.log.find("source_unknown")) == LABELS_LOGGED_MAX


def test_the_same_id_again_is_acknowledged_with_the_seq_of_the_first(way: Way) -> None:
    body = json.dumps({"id": f"same{way.query}"}).encode()
    first, second = way.post("/event", body).json(), way.post("/event", body).json()
    assert (second["seq"], second["duplicate"]) == (first["seq"], True)
    assert "duplicate" not in first


def test_an_event_beyond_its_size_is_refused(way: Way) -> None:
    assert_problem(way.post("/event", b'{"city":"%b"}' % (b"x" * 262_144)), 413, says="at most 262,144 bytes")


# ------------------------------------------------------------------------------------------- batches


def test_each_line_is_judged_by_itself(way: Way) -> None:
    body = b'{"city":"a"}\r\n\r\n{"city":5}\n  \nnope\n\n{"city":"b"}'
    answer = way.post("/events", body).json()
    assert (answer["accepted"], answer["rejected"]) == (2, 2)
    assert answer["last_seq"] == answer["first_seq"] + 1
    assert answer["errors"][0] == {"line": 3, "error": "city: expected `str | null`, got `int`", "field": "city"}
    assert (answer["errors"][1]["line"], len(answer["errors"])) == (5, 2)


def test_an_array_is_judged_by_position(way: Way) -> None:
    answer = way.post("/events", b'[{"city":"a"},{"city":5},7]').json()
    assert (answer["accepted"], answer["rejected"], [error["line"] for error in answer["errors"]]) == (1, 2, [2, 3])


@pytest.mark.parametrize("bad", [b'{"duration_ms":NaN}', b'"\xff"', b'{"a":' * 500 + b"1" + b"}" * 500])
def test_an_element_that_cannot_be_read_costs_no_other(way: Way, bad: bytes) -> None:
    for elements in ([bad, b'{"endpoint":"b"}'], [*[b'{"endpoint":"b"}'] * 300, bad]):
        answer = way.post("/events", b"[" + b",".join(elements) + b"]").json()
        assert (answer["accepted"], answer["rejected"]) == (len(elements) - 1, 1)
        assert [error["line"] for error in answer["errors"]] == [elements.index(bad) + 1]


def test_a_good_event_between_two_stray_quotes_does_not_vanish_behind_a_200(way: Way) -> None:
    good, stray = b'{"endpoint":"between"}', b'{"endpoint":"/x"y"}'
    problem = assert_problem(
        way.post("/events", b"[%b,%b,%b,%b,%b]" % (good, stray, good, stray, good)), 400, says="element 2 is not JSON"
    )
    assert problem.items() >= NOTHING_TAKEN.items()
    assert way.daemon.json("/ops", endpoint="between")["ops"] == []


def test_half_a_character_is_no_error_and_said(way: Way) -> None:
    half = rb'{"endpoint":"cut","error":"boom \ud83d"}'
    answer = way.post("/event", half).json()
    (note,) = answer["notes"]
    stored = [answer["seq"]]
    for body in (b"[%b,{}]" % half, b"%b\n{}\n" % half):
        many = way.post("/events", body).json()
        assert (many["accepted"], many["rejected"], many["notes"]) == (2, 0, {note: 1})
        stored.append(many["first_seq"])
    ops = {op["seq"]: op["error"] for op in way.daemon.json("/ops", endpoint="cut")["ops"]}
    assert [ops[seq] for seq in stored] == ["boom \ufffd"] * 3


def test_when_no_line_was_good_the_same_fields_come_with_a_400(way: Way) -> None:
    response = way.post("/events", b'{"city":5}\nnope\n')
    problem = assert_problem(response, 400, field="city", says="no line was good; line 1: city")
    assert (problem["accepted"], problem["rejected"]) == (0, 2)
    assert [error["line"] for error in problem["errors"]] == [1, 2]
    assert (problem["first_seq"], problem["last_seq"], problem["duplicates"]) == (None, None, 0)


def test_an_event_over_several_lines_is_told_the_shape_of_a_batch(way: Way) -> None:
    response = way.post("/events", b'{\n  "endpoint": "a"\n}\n')
    assert "one JSON object a line" in assert_problem(response, 400, says="no line was good; line 1: not JSON")["hint"]


NOTHING_TAKEN: Final = {
    "accepted": 0,
    "rejected": 0,
    "errors": [],
    "duplicates": 0,
    "first_seq": None,
    "last_seq": None,
}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"\r\n \n", "empty"),
        (b"[]", "empty"),
        (b"[{}", "it has no end"),
        (b"{}\n" * (EVENTS_MAX + 1), "at most"),
    ],
)
def test_a_batch_that_is_refused_as_a_whole_is_a_problem_with_the_fields_of_an_answer(
    way: Way, body: bytes, says: str
) -> None:
    problem = assert_problem(way.post("/events", body), 400, says=says)
    assert problem.items() >= NOTHING_TAKEN.items()


def test_a_body_that_is_no_gzip_is_a_problem_with_the_fields_of_an_answer(way: Way) -> None:
    problem = assert_problem(way.post("/events", b"{}", Content_Encoding="gzip"), 400, says="gzip")
    assert problem.items() >= NOTHING_TAKEN.items()


@pytest.mark.parametrize("body", [b"{}\n" * (EVENTS_MAX + 1), b"[" + b"{}," * EVENTS_MAX + b"{}]"])
def test_too_many_lines_are_a_problem_and_none_is_stored(way: Way, body: bytes) -> None:
    before = way.daemon.json("/health")["last_seq"]
    assert_problem(way.post("/events", body), 400, says=f"at most {EVENTS_MAX} events")
    assert way.daemon.json("/health")["last_seq"] == before


def test_a_full_batch_with_blank_lines_is_taken(way: Way) -> None:
    assert way.post("/events", b"\n" * 2_000 + b"{}\n\n" * EVENTS_MAX).json()["accepted"] == EVENTS_MAX


def test_ids_are_known_again_within_and_across_requests(way: Way) -> None:
    name = f"batch{way.query}"
    first = way.post("/events", lines({"id": name}, {"id": name}, {"id": name + "2"}, {})).json()
    assert (first["accepted"], first["duplicates"]) == (4, 1)
    assert first["last_seq"] == first["first_seq"] + 2
    again = way.post("/events", lines({"id": name}, {"id": name + "2"})).json()
    assert (again["accepted"], again["duplicates"], again["first_seq"], again["last_seq"]) == (2, 2, None, None)


def test_more_errors_than_are_shown_are_counted(way: Way) -> None:
    answer = way.post("/events", b"{}\n" + b"x\n" * (EVENTS_MAX - 1)).json()
    assert (answer["accepted"], answer["rejected"], answer["errors_omitted"]) == (1, EVENTS_MAX - 1, 0)


# ------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_gzip_body_is_read(way: Way, encoding: str) -> None:
    body = gzip.compress(lines({"city": "a"}, {"city": "b"}))
    assert way.post("/events", body, Content_Encoding=encoding).json()["accepted"] == 2
    assert way.post("/event", gzip.compress(b"{}"), Content_Encoding=encoding).status_code == 200


def test_all_members_of_a_gzip_body_are_read(way: Way) -> None:
    body = gzip.compress(b'{"city":"a"}\n{"ci') + gzip.compress(b"") * 5_000 + gzip.compress(b'ty":"b"}\n')
    assert way.post("/events", body, **GZIP).json()["accepted"] == 2


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda body: body[:-1], "ends too early"),
        (lambda body: body[:4], "ends too early"),
        (lambda body: body[:-6] + b"\0" + body[-5:], "not gzip"),
        (lambda body: body + b"rest", "not gzip"),
        (lambda _: b"{}", "not gzip"),
        (lambda _: b"", "ends too early"),
        (lambda body: gzip.compress(b"") * 10_000 + body, "more than 10,000 gzip members"),
    ],
)
def test_a_broken_gzip_body_is_a_problem_and_nothing_of_it_is_stored(
    way: Way, spoil: Callable[[bytes], bytes], says: str
) -> None:
    before = way.daemon.json("/health")["last_seq"]
    assert_problem(way.post("/events", spoil(gzip.compress(lines({}, {}))), **GZIP), 400, says=says)
    assert way.daemon.json("/health")["last_seq"] == before


def test_a_gzip_body_that_grows_beyond_the_limit_is_refused(way: Way) -> None:
    assert_problem(way.post("/events", gzip.compress(b" " * (PLAIN_BYTES_MAX + 1)), **GZIP), 413, says="decompression")
    two = gzip.compress(b"{}\n" + b" " * (PLAIN_BYTES_MAX // 2)) * 2
    assert_problem(way.post("/events", two, **GZIP), 413, says="decompression")
    assert way.post("/events", gzip.compress(b"{}" + b" " * (PLAIN_BYTES_MAX - 2)), **GZIP).status_code == 400  # event


def test_with_limits_as_large_as_they_may_be_all_ways_are_open(tmp_path: Path) -> None:
    unlimited = [name for name, leaf in LEAVES.items() if getattr(leaf.kind, "le", None) == INT_MAX]
    sections = sorted({name.partition(".")[0] for name in unlimited})
    config = "\n".join(f"{section} = {{ {_all_at_most(section, unlimited)} }}" for section in sections)
    with served(tmp_path, config) as daemon:
        body = lines({"city": "a"}, {"city": "b"})
        for content, headers in ((body, {}), (gzip.compress(body), GZIP), (iter([body]), {})):
            answer = daemon.ingest.post("/events", content=content, headers=headers)
            assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
        assert len(daemon.json("/ops")["ops"]) == 6
        assert not daemon.log.find("actor_failed")


def _all_at_most(section: str, names: list[str]) -> str:
    return ", ".join(f"{name.partition('.')[2]} = {INT_MAX}" for name in names if name.startswith(f"{section}."))


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "nonsense", "\xff"])
def test_an_unknown_encoding_is_refused(way: Way, encoding: str) -> None:
    raw = {b"Content-Encoding": encoding.encode("latin-1")}
    response = way.client.post("/events" + way.query, content=b"{}", headers=list(raw.items()))
    assert_problem(response, 415, says="is not known")


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_no_encoding_may_be_said(way: Way, encoding: str) -> None:
    assert way.post("/event", b"{}", Content_Encoding=encoding).status_code == 200


# ------------------------------------------------------------------------------------------- sizes and times


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(way: Way) -> None:
    head = b"POST /events%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    answer = way.daemon.exchange(head % (way.query.encode(), BODY_BYTES_MAX + 1))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"error":"a body holds at most 300,000 bytes, this one 300,001"' in answer


def test_a_body_of_just_the_limit_is_taken(way: Way) -> None:
    assert way.post("/events", b"{}\n" + b"\n" * (BODY_BYTES_MAX - 3)).json()["accepted"] == 1


def test_a_chunked_body_beyond_the_limit_is_refused(daemon: Served) -> None:
    chunks = iter([b"{}\n" * 10_000] * 11)
    assert_problem(daemon.client.post("/events", content=chunks), 413, says="at most 300,000 bytes")


def test_a_chunked_body_is_read(daemon: Served) -> None:
    response = daemon.client.post("/events", content=iter([b'{"ci', b'ty":"a"}\n{', b"}"]))
    assert response.json()["accepted"] == 2


def test_a_body_that_does_not_come_in_time_is_refused_and_the_connection_closed(way: Way) -> None:
    head = f"POST /event{way.query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n"
    answer = way.daemon.exchange(head.encode() + b'{"city":')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert b'"error":' in answer


def test_a_client_that_leaves_in_the_middle_of_its_body_stores_nothing(way: Way) -> None:
    before = way.daemon.json("/health")["last_seq"]
    with way.daemon.connect() as connection:
        connection.sendall(
            f"POST /event{way.query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{".encode()
        )
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass
    assert way.daemon.json("/health")["last_seq"] == before


def test_a_client_that_asks_first_is_told_to_go_on(daemon: Served) -> None:
    head = START + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with daemon.connect() as connection:
        connection.sendall(head)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert b'"accepted":true' in b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Host: localhost\r\nContent-Length: %d\r\n" % (BODY_BYTES_MAX + 1), b"413"),
        (b"Host: elsewhere.example\r\nContent-Length: 2\r\n", b"421"),
        (b"Host: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"400"),
    ],
)
def test_a_client_whose_head_is_refused_is_not_told_to_go_on(daemon: Served, headers: bytes, status: bytes) -> None:
    answer = daemon.exchange(b"POST /event HTTP/1.1\r\nExpect: 100-continue\r\n" + headers + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_client_that_asks_first_waits_until_there_is_room(tmp_path: Path) -> None:
    head = START.replace(b"/event", b"/events") + b"Connection: close\r\nContent-Length: 90000\r\n"
    with served(tmp_path, SCARCE_ROOM) as daemon, daemon.connect() as holder:
        holder.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert holder.recv(65_536).startswith(b"HTTP/1.1 100 ")
        assert daemon.exchange(head + b"Expect: 100-continue\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        holder.sendall(b"{}" + b"\n" * 89_998)
        assert b'"accepted":1' in b"".join(iter(lambda: holder.recv(65_536), b""))


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("path", ["/events", "/events?"])
def test_when_there_is_no_room_for_a_body_the_caller_is_told_when_to_come_again(tmp_path: Path, path: str) -> None:
    """Each way in has room of its own; the front door's is taken as bytes arrive."""
    body = b"{}" + b"\n" * 90_000  # one event: the wait for the disk, which has the same limit, shall not decide
    with served(tmp_path, SCARCE_ROOM) as daemon, daemon.connect() as holder:
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body))
        holder.sendall(head + body[:10_000])
        client = daemon.ingest if path == "/events" else daemon.client
        response = client.post(path, content=body)
        while response.status_code == 200:  # the holder's first bytes have not been read yet
            response = client.post(path, content=body)
        problem = assert_problem(response, 503, says="no room for the body")
        assert int(response.headers["Retry-After"]) >= 1
        assert problem["retryable"] is True
        assert "again" in problem["hint"]
        assert daemon.json("/health")["status"] == "ok"
        assert daemon.ingest.post("/event", content=b'{"city":"small"}').status_code == 200


def test_memory_stays_flat_when_many_compressed_bodies_come_at_once(tmp_path: Path) -> None:
    body = gzip.compress(b"{}\n" + b" " * (15 * 1024 * 1024))
    patient = "[admission]\nwait_seconds_max = 60\n"
    with served(tmp_path, patient) as daemon, ThreadPoolExecutor(20) as pool:
        answers = pool.map(
            lambda _: httpx.post(daemon.url + "/events", content=body, headers=GZIP, timeout=60), range(20)
        )
        assert [answer.json()["accepted"] for answer in answers] == [1] * 20
        # Twenty at once would be 300 MB, and copies of them.
        assert daemon.resident_mb_max() < 250
