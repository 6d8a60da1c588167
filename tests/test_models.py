"""The seed's model, against a real server on the loopback interface."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx
import pytest
import trio

from observer_actors.models import ChatReply, LakehouseModel, Model, ModelFailed, OllamaModel, OpenAIModel
from observer_actors.models.exchange import ANSWER_BYTES_MAX, exchange
from observer_actors.settings import DiagnosisSettings, ModelSettings

Script = Callable[[trio.SocketStream], Awaitable[None]]


class Peer:
    """Reads one request a connection, then does what its script says; keeps what it was asked."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.url = ""
        self.heads: list[str] = []
        self.bodies: list[object] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += await stream.receive_some()
        self.heads.append(head.decode())
        self.bodies.append(json.loads(body))
        with suppress(trio.BrokenResourceError):  # the client may go away: some tests are about that
            await self._script(stream)


def answering(body: bytes, status: str = "200 OK") -> Script:
    async def script(stream: trio.SocketStream) -> None:
        await stream.send_all(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        )

    return script


async def hanging(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def hanging_up(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def endless(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        await stream.send_all(b"x" * 65_536)


async def half_an_answer(stream: trio.SocketStream) -> None:
    await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"text":')


async def no_http(stream: trio.SocketStream) -> None:
    await stream.send_all(b"220 mail.example ESMTP\r\n")


@asynccontextmanager
async def model_before(script: Script, *, timeout_seconds: float = 5.0) -> AsyncIterator[tuple[Model, Peer]]:
    peer = Peer(script)
    async with trio.open_nursery() as nursery, httpx.AsyncClient(trust_env=False) as client:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, peer.serve, [listener])
        peer.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        settings = ModelSettings(lakehouse_url=f"{peer.url}/", timeout_seconds=timeout_seconds)
        yield LakehouseModel(client, settings), peer
        nursery.cancel_scope.cancel()


async def test_the_seeds_question_is_asked_and_the_text_is_the_answer() -> None:
    async with model_before(answering('{"text":"más disco","model":"x"}'.encode())) as (model, peer):
        assert await model.generate("why?") == "más disco"
    assert model.name == "qwen2.5"
    assert peer.heads[0].startswith("POST /ai/generate HTTP/1.1\r\n")
    assert "content-type: application/json" in peer.heads[0].lower()
    assert peer.bodies == [{"prompt": "why?", "model": "qwen2.5", "max_tokens": 400, "temperature": 0.2}]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (answering(b'{"text":"x"}', "500 Internal Server Error"), "status 500"),
        (answering(b'{"text":"x"}', "302 Found"), "status 302"),
        (answering(b"<html>"), "not an answer"),
        (answering(b'{"text":"\xff"}'), "not an answer"),
        (answering(b"[" * 100_000), "not an answer"),
        (answering(b'{"text":7}'), "not an answer"),
        (answering(b'{"error":"no model"}'), 'not an answer: .* `text`: {"error":"no model"}$'),
        (answering(b'{"text":" \\n"}'), "without words"),
        (answering(b'{"text":"' + b"x" * ANSWER_BYTES_MAX + b'"}'), "more than 1,048,576 bytes"),
        (endless, "more than 1,048,576 bytes"),
        (half_an_answer, "RemoteProtocolError"),
        (hanging_up, "RemoteProtocolError"),
        (no_http, "RemoteProtocolError"),
    ],
)
async def test_no_usable_answer_is_a_failure_worth_another_try(script: Script, said: str) -> None:
    async with model_before(script) as (model, _peer):
        with pytest.raises(ModelFailed, match=said) as raised:
            await model.generate("why?")
    assert raised.value.retryable


async def test_a_model_that_does_not_answer_in_time_has_failed() -> None:
    async with model_before(hanging, timeout_seconds=0.05) as (model, _peer):
        with pytest.raises(ModelFailed, match=r"no answer within 0\.05 s"):
            await model.generate("why?")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "nonsense", "http://[broken", "http://a..b", f"http://{'a' * 64}.example"]
)
async def test_a_model_that_cannot_be_reached_has_failed(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        model = LakehouseModel(client, ModelSettings(lakehouse_url=url))
        with pytest.raises(ModelFailed):
            await model.generate("why?")


@pytest.mark.parametrize("url", ["http://me:hunter2@127.0.0.1:1", "http://me:hun/ter2@127.0.0.1:1"])
async def test_a_failure_tells_no_password(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        diagnosis = DiagnosisSettings(url=url, model="m")
        lakehouse = LakehouseModel(client, ModelSettings(lakehouse_url=url))
        asked: list[Callable[[], Awaitable[object]]] = [
            partial(lakehouse.generate, "why?"),
            partial(OpenAIModel(client, diagnosis).chat, "you", "why?", {}),
            partial(OllamaModel(client, diagnosis).chat, "you", "why?", {}),
        ]
        for ask in asked:
            with pytest.raises(ModelFailed) as raised:
                await ask()
            assert "hun" not in str(raised.value)


@pytest.mark.parametrize("key", ["sk-hunter2\nsecond", "sk-hunter2\u00e9"])
async def test_a_failure_tells_no_key(key: str) -> None:
    async with model_before(hanging) as (_model, peer), httpx.AsyncClient(trust_env=False) as client:
        model = OpenAIModel(client, DiagnosisSettings(url=peer.url, model="m"), api_key=key)
        with pytest.raises(ModelFailed) as raised:
            await model.chat("you", "why?", {})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("status", "begins"), [(401, "status 401"), (200, "not an answer")])
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no key sk-abcdefghijklmnop.", "no key •••."),
        ("no key sk-abcde***ijklmnop, nor ijklmno", "no key •••***•••, nor ijklmno"),
    ],
)
async def test_what_is_no_answer_tells_no_part_of_the_key(said: str, shown: str, status: int, begins: str) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(status, stream=httpx.ByteStream(said.encode())))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(ModelFailed) as raised:
            await exchange(client, "http://h/v1", {}, object, timeout_s=5.0, api_key="sk-abcdefghijklmnop")
    assert str(raised.value).startswith(f"http://h/v1: {begins}: ")
    assert str(raised.value).endswith(f": {shown}")


async def asked(model: type[OpenAIModel | OllamaModel], answer: bytes) -> ChatReply:
    """Give what a model makes of what its server answers."""
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, stream=httpx.ByteStream(answer)))
    async with httpx.AsyncClient(transport=transport) as client:
        return await model(client, DiagnosisSettings(url="http://h", model="m")).chat("you", "why?", {})


@pytest.mark.parametrize(
    ("model", "counts"),
    [
        (OpenAIModel, b'"usage": {"total_tokens": %s}' % (b"9" * 400)),
        (OpenAIModel, b'"usage": {"total_tokens": null, "prompt_tokens": 1.5}'),
        (OllamaModel, b'"prompt_eval_count": %s, "eval_count": %s' % (b"9" * 4_300, b"9" * 4_300)),
        (OllamaModel, b'"prompt_eval_count": null, "eval_count": "12"'),
    ],
)
async def test_a_count_of_tokens_that_no_answer_takes_is_none(
    model: type[OpenAIModel | OllamaModel], counts: bytes
) -> None:
    """Beyond a double there are no metrics, and beyond 4,300 digits no JSON."""
    said = b'{"content": "%b"}' % (b"x" * 400)
    reply = await asked(model, b'{"choices": [{"message": %s}], "message": %s, %s}' % (said, said, counts))
    assert 100 < reply.tokens < 1_000


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (OpenAIModel, b'{"choices": [{"message": {"content": ""}}], "usage": {"total_tokens": 321}}'),
        (OpenAIModel, b'{"choices": [], "usage": {"total_tokens": 321}}'),
        (OllamaModel, b'{"message": {"content": ""}, "prompt_eval_count": 300, "eval_count": 21}'),
    ],
)
async def test_an_answer_without_words_has_cost_its_tokens(
    model: type[OpenAIModel | OllamaModel], answer: bytes
) -> None:
    with pytest.raises(ModelFailed, match=r"diagnosis\.answer_tokens_max, 400") as raised:
        await asked(model, answer)
    assert raised.value.tokens == 321


async def test_asking_can_be_cancelled() -> None:
    async with model_before(hanging) as (model, _peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await model.generate("why?")
        assert scope.cancelled_caught
