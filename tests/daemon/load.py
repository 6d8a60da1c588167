"""Clients that remember what they were told, and the question asked of every journal afterwards: is it true."""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h11
import msgspec
import trio
from msgspec import UNSET

from observer_actors.op import Op, decode_op

ENDPOINTS: Final = ("tool:search", "tool:book", "tool:cancel")
BATCH_MAX: Final = 12
_SEGMENT: Final = re.compile(r"ops-(\d{20})\.jsonl(\.gz)?")


@dataclass(frozen=True)
class Answer:
    """Status, headers (lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire:
    """One keep-alive connection; httpx would cost more than the daemon does."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def post(self, path: str, body: bytes) -> Answer:
        """Send one request and give the answer.

        :raises trio.BrokenResourceError: the connection broke, or was closed, before the answer.
        """
        if self._http.states[h11.CLIENT] is not h11.IDLE:
            raise trio.BrokenResourceError("the daemon has closed this connection")
        headers = [("Host", "localhost"), ("Content-Length", str(len(body)))]
        events: list[h11.Event] = [
            h11.Request(method="POST", target=path, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        await self._stream.send_all(b"".join(self._http.send(event) or b"" for event in events))
        head: h11.Response | None = None
        content = b""
        while True:
            event = self._http.next_event()
            match event:
                case h11.NEED_DATA:
                    self._http.receive_data(await self._stream.receive_some())
                case h11.Response():
                    head = event
                case h11.Data():
                    content += event.data
                case h11.EndOfMessage():
                    assert head is not None
                    if self._http.states[h11.CLIENT] is h11.DONE:
                        self._http.start_next_cycle()
                    named = {name.decode(): value.decode() for name, value in head.headers}
                    return Answer(head.status_code, named, content)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    """Connect to the daemon."""
    stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
    async with stream:
        yield Wire(stream)


@dataclass
class Ledger:
    """What was sent, and what came back; each op is known by the first word of its `input_summary`."""

    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    """Name -> the seq that was given with the 2xx."""
    stored: set[str] = field(default_factory=set)
    """Acknowledged in a batch with duplicates, whose answer does not say which seq is whose."""
    refused: dict[str, int] = field(default_factory=dict)
    """Name -> the status, of what was refused and never acknowledged."""
    unanswered: set[str] = field(default_factory=set)
    """The connection broke before the answer."""
    doubtful: set[str] = field(default_factory=set)
    """Sent once or more without an answer that says whether it is stored, whatever was said later."""
    overtaken: set[str] = field(default_factory=set)
    """Sent beside later ones, each for itself, and then again: those may have been stored meanwhile."""
    answers: Counter[int] = field(default_factory=Counter)
    """How many answers had which status."""
    _noted: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    @property
    def owed(self) -> set[str]:
        """The names of all ops that must be in the journal."""
        return set(self.acknowledged) | self.stored

    async def wait_owed(self, count: int) -> None:
        """Wait until so many ops have been acknowledged."""
        while len(self.acknowledged) + len(self.stored) < count:
            await self._noted.park()

    def note_sent(self, events: Sequence[dict[str, Any]]) -> None:
        """Take in what is being sent; whoever is cut off now never learns what became of it."""
        for event in events:
            name = name_in(event["input_summary"])
            self.sent[name] = event
            if name in self.unanswered:
                self.doubtful.add(name)
            if name not in self.acknowledged:
                self.unanswered.add(name)

    def note(self, events: Sequence[dict[str, Any]], answer: Answer) -> None:
        """Take in what a client was told about its events."""
        names = [name_in(event["input_summary"]) for event in events]
        self.answers[answer.status] += 1
        self.unanswered.difference_update(names)
        if answer.status == 200:
            self._note_stored(names, answer.json)
            for name in names:
                self.refused.pop(name, None)
        else:
            assert answer.status in (408, 500, 503, 507), answer.body
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json["status"] == answer.status
            assert answer.json["error"]
            assert answer.status in (408, 500) or int(answer.headers["retry-after"]) >= 1
            self.refused.update(dict.fromkeys(names, answer.status))
            # 408: while the daemon drains, a request that has just come in may be told so, and be stored all the same.
            if answer.status in (408, 500) or "may still succeed" in answer.json["error"]:
                self.doubtful.update(names)
        self._noted.unpark_all()

    def _note_stored(self, names: Sequence[str], answer: dict[str, Any]) -> None:
        if "seq" in answer:
            told = {names[0]: answer["seq"]}
        elif answer["duplicates"]:
            self.stored.update(names)
            return
        else:
            assert answer["accepted"] == len(names) == answer["last_seq"] - answer["first_seq"] + 1
            told = dict(zip(names, range(answer["first_seq"], answer["last_seq"] + 1), strict=True))
        for name, seq in told.items():
            assert self.acknowledged.setdefault(name, seq) == seq, f"{name} was acknowledged under two seqs"

    def check(self, ops: Sequence[Op]) -> None:
        """Compare with the journal: nothing acknowledged is missing, doubled, elsewhere or altered."""
        assert [op.seq for op in ops] == list(range(1, len(ops) + 1)), "seq has a gap"
        counts = Counter(name_in(op.input_summary) for op in ops)
        assert [name for name, count in counts.items() if count > 1] == [], "stored more than once"
        assert counts.keys() <= self.sent.keys(), "stored, but never sent"
        assert self.owed - counts.keys() == set(), "acknowledged, but lost"
        refused = self.refused.keys() - self.doubtful - self.unanswered
        wrong = {name: self.refused[name] for name in sorted(refused & counts.keys())}
        assert wrong == {}, f"refused, but stored: {wrong}"
        seqs = {name_in(op.input_summary): op.seq for op in ops}
        assert {name: seqs[name] for name in self.acknowledged} == self.acknowledged, "stored under another seq"
        for op in ops:
            sent = self.sent[name_in(op.input_summary)]
            assert op.id == sent.get("id", UNSET)
            assert (op.endpoint, op.input_summary, op.success) == (
                sent["endpoint"],
                sent["input_summary"],
                sent["success"],
            ), "stored otherwise than sent"
        self._check_order(ops)

    def _check_order(self, ops: Sequence[Op]) -> None:
        """Each client sends one thing after another: its ops stand in the journal in that order."""
        newest: dict[str, int] = {}
        for op in ops:
            client, _, number = name_in(op.input_summary).rpartition("-")
            if name_in(op.input_summary) in self.overtaken:
                continue
            assert newest.get(client, 0) < int(number), f"seq {op.seq} of {client} stands behind a later one"
            newest[client] = int(number)


def name_in(summary: str) -> str:
    """Give the name that a client gave to an op."""
    return summary.partition(" ")[0]


class Client:
    """Sends single events and batches, one after another.

    :param retries: send again, with the same ids, what was not acknowledged. Who does not retry gives no ids: what
        happens to its ops owes nothing to their being recognised.
    """

    def __init__(self, name: str, ledger: Ledger, seed: int, *, retries: bool, pad: int = 0) -> None:
        self._name = name
        self._ledger = ledger
        self._chance = random.Random(seed)
        self._retries = retries
        self._pad = "x" * pad
        self._count = 0
        self.pending: list[dict[str, Any]] = []

    async def run(self, url: str) -> None:
        """Send until cancelled, or until nobody listens any more; connections that break are made anew."""
        while True:
            try:
                async with connected(url) as wire:
                    while True:
                        await self.send(wire)
            except OSError:
                return
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                await trio.lowlevel.checkpoint()

    async def send(self, wire: Wire) -> None:
        """Send one request."""
        events = self.pending or self._make()
        self.pending = events if self._retries else []
        self._ledger.note_sent(events)
        if len(events) == 1:
            answer = await wire.post("/event", msgspec.json.encode(events[0]))
        else:
            answer = await wire.post("/events", b"\n".join(map(msgspec.json.encode, events)))
        self._ledger.note(events, answer)
        if answer.status == 200:
            self.pending = []

    def _make(self) -> list[dict[str, Any]]:
        size = 1 if self._chance.random() < 0.6 else self._chance.randint(2, BATCH_MAX)
        return [self._event() for _ in range(size)]

    def _event(self) -> dict[str, Any]:
        self._count += 1
        success = self._chance.random() < 0.7
        event = {
            "endpoint": self._chance.choice(ENDPOINTS),
            "input_summary": f"{self._name}-{self._count} asks{self._pad}",
            "success": success,
            "duration_ms": self._chance.randint(1, 900),
            "source": self._chance.choice(("mcp", "bot", "scenario")),
        }
        if self._retries:
            event["id"] = f"{self._name}-{self._count}"
        if not success:
            event["error"] = f"{self._chance.choice(('timeout', 'refused'))} after {self._count} ms"
        return event


def clients(count: int, ledger: Ledger, seed: int, *, pad: int = 0) -> list[Client]:
    """Make clients; every second one retries."""
    return [Client(f"c{n}", ledger, seed * 1_000 + n, retries=n % 2 == 0, pad=pad) for n in range(count)]


async def settle(some: Iterable[Client], url: str) -> None:
    """Have the clients that retry send what they still have pending, until it is acknowledged."""
    async with connected(url) as wire:
        for client in some:
            while client.pending:
                await client.send(wire)


def stored_ops(data_dir: Path) -> list[Op]:
    """Read the whole journal of a stopped daemon from its files, knowing only what the format says."""
    observer = data_dir / "_observer"
    segments: dict[int, Path] = {}
    for path in sorted((observer / "segments").iterdir()):
        found = _SEGMENT.fullmatch(path.name)
        if found:  # sorted: the compressed one, which counts, comes after the raw one
            segments[int(found[1])] = path
    texts = [_text(path) for _, path in sorted(segments.items())]
    texts.append((observer / "ops.jsonl").read_bytes())
    return [decode_op(line) for text in texts for line in text.splitlines()]


def _text(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
