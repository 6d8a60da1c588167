"""The fake server that other tests lean on does what it is told."""

from contextlib import suppress

import httpx
import pytest
import trio

from tests.fakes.http_peer import Held, Json, Reply, Request, Slow, Status, http_peer


async def test_replies_come_in_order_and_the_last_one_stays() -> None:
    async with http_peer() as peer, httpx.AsyncClient() as client:
        peer.on("/log", Status(503), Json({"ok": True}))
        answers = [await client.post(f"{peer.url}/log?a=1", json={"n": n}) for n in range(3)]
        assert [answer.status_code for answer in answers] == [503, 200, 200]
        assert [request.json() for request in peer.received("/log")] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert {request.connection for request in peer.requests} == {1}, "keep-alive"
        assert peer.requests[0].query == {"a": ["1"]}


async def test_a_route_may_name_its_method_and_what_is_not_scripted_is_404() -> None:
    async with http_peer() as peer, httpx.AsyncClient(base_url=peer.url) as client:
        peer.on("GET /x", Json(1))
        peer.on("POST /x", lambda request: Json(request.json()))
        assert (await client.get("/x")).json() == 1
        assert (await client.post("/x", json="two")).json() == "two"
        assert (await client.put("/x")).json() == {"error": "nothing scripted for PUT /x"}
        peer.on("/x", Json(3))
        assert (await client.get("/x")).json() == 3


async def test_a_held_answer_waits_for_the_test_and_others_do_not() -> None:
    async with http_peer(Json("free")) as peer, httpx.AsyncClient(base_url=peer.url) as client:
        release = trio.Event()
        peer.on("/held", Held(release, Json("held")))
        answers: list[object] = []

        async def ask() -> None:
            answers.append((await client.get("/held")).json())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await peer.wait_requests(1, "/held")
            assert (await client.get("/other")).json() == "free"
            assert answers == []
            release.set()
        assert answers == ["held"]


async def test_a_slow_answer_arrives() -> None:
    async with http_peer(Slow(0.001, Json(1))) as peer, httpx.AsyncClient() as client:
        assert (await client.get(peer.url)).json() == 1


async def test_a_peer_may_come_back_on_its_port() -> None:
    async with http_peer() as first, httpx.AsyncClient() as client:
        await client.get(first.url)
    async with http_peer(Json(2), port=first.port) as second, httpx.AsyncClient() as client:
        assert (await client.get(second.url)).json() == 2


async def test_a_test_that_fails_fails_with_its_own_error() -> None:
    with pytest.raises(ZeroDivisionError):
        async with http_peer():
            raise ZeroDivisionError


async def test_an_answerer_that_fails_fails_the_test() -> None:
    def answer(_: Request) -> Reply:
        raise ZeroDivisionError

    async def ask() -> None:
        async with http_peer(answer) as peer, httpx.AsyncClient() as client:
            with suppress(httpx.HTTPError):
                await client.get(peer.url)
            await trio.sleep_forever()

    with pytest.raises(ZeroDivisionError):
        await ask()


async def test_a_client_that_speaks_no_http_is_noted_and_harms_nobody() -> None:
    async with http_peer(Json(1)) as peer, httpx.AsyncClient() as client:
        stream = await trio.open_tcp_stream("127.0.0.1", peer.port)
        await stream.send_all(b"\x00\x01 hello\r\n\r\n")
        assert await stream.receive_some() == b""
        await stream.aclose()
        assert (await client.get(peer.url)).json() == 1
        assert len(peer.troubles) == 1
