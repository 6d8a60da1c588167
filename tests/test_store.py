"""What has been learned, on disk: transactions, the outbox, mending."""

import errno
import itertools
import os
import re
import resource
import shutil
import sqlite3
import stat
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from observer_actors.errors import DiskFailed, DiskFull, FormatUnknown, ObserverError
from observer_actors.patterns import Diagnosis, Example, Outgoing, Pattern, Reason, by_any_id, webhook_message
from observer_actors.patterns.diagnosis import Case
from observer_actors.playbook import Copy, Entry, Kind, Row, Section
from observer_actors.store import (
    LEARNED_PATH,
    Lane,
    LaneStatistics,
    Queued,
    Saved,
    Store,
    StoreBusy,
    StoreFailed,
    files,
    learned,
    read_playbook,
)
from observer_actors.store.files import refuse_newer
from observer_actors.store.schema import MIGRATIONS
from tests.conftest import ROOT

HEAD_BYTES = 100
"""Of a file of SQLite's (sqlite.org/fileformat.html)."""
WRITE_VERSION = 18
"""The byte that makes SQLite refuse to write, and nothing but that: only writing shows it."""
OUTBOX_MAX = 3

PATTERN = Pattern(
    id="p1",
    version=1,
    endpoint="sql:run",
    template="row <num> gone",
    first_seq=1,
    last_seq=7,
    first_seen="2026-11-22T10:00:00.000000Z",
    last_seen="2026-11-22T10:00:01.000000Z",
    count=2,
    examples=(Example(1, "[sql:run] é\x00: row 1 gone"), Example(7, "[sql:run] x: row 7 gone")),
    sources={"mcp": 2},
)
ENTRY = Entry(id="e1", kind=Kind.DO, endpoint="sql:run", about="", text="works", example_seqs=(1, 9))
PLAYBOOK = [Row(Section.ENTRY, "e1", 9, msgspec.json.encode(ENTRY))]
CASE = Case(pattern_id="p1", reason=Reason.NEW, seqs=(7,), failures=1, count=1, last_seq=7)
DIAGNOSIS = Diagnosis(key="k1", cases=(CASE,), text="full disk", model="m", created="2026-11-22T10:00:02.000Z")


OWNERS = {"p1": PATTERN}


def said_of(pattern: str, key: str, text: str = "full disk") -> Diagnosis:
    case = msgspec.structs.replace(CASE, pattern_id=pattern)
    return msgspec.structs.replace(DIAGNOSIS, key=key, cases=(case,), text=text)


def message(key: str) -> Outgoing:
    return Outgoing(key=key, path="/log", body=b'{"of":"' + key.encode() + b'"}')


def part(entry: Entry) -> Row:
    return Row(Section.ENTRY, entry.id, 9, msgspec.json.encode(entry))


def entries(store: Store) -> dict[str, Entry]:
    return dict(store.playbook().entries)


def copy(key: str) -> Copy:
    return Copy("sql:run", 5, message(key))


def enqueue(store: Store, keys: Iterable[str]) -> Saved:
    return store.save_state("standings", b"{}", [message(key) for key in keys])


def keys_waiting(store: Store) -> list[str]:
    """Take the outbox out in its order."""
    keys = []
    while (head := store.head(Lane.GATEWAY)) is not None:
        keys.append(head.key)
        store.delivered(head.key)
    return keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LEARNED_PATH


@pytest.fixture
def open_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    """Open the one file, again and again; what is open at the end is closed."""
    opened: list[Store] = []
    connect = sqlite3.connect

    def open_one(at: Path = path, *, trace: Callable[[str], None] | None = None) -> Store:
        """Open it; ``trace`` is called with each statement just before it runs."""

        def traced(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **options)
            connection.set_trace_callback(trace)
            return connection

        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", traced)
            opened.append(Store.open(at, outbox_max=OUTBOX_MAX))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()


# ------------------------------------------------------------------------------------- learned things


def test_a_new_store_is_empty(store: Store) -> None:
    assert (store.cursor("analyzer"), store.state("stats", msgspec.json.Decoder()), store.head(Lane.GATEWAY)) == (
        0,
        None,
        None,
    )
    assert (store.patterns(), entries(store), store.told(), store.diagnoses(OWNERS)) == ({}, {}, {}, {})
    assert store.set_aside is None


def test_only_its_owner_may_read_the_file_and_its_log(store: Store, path: Path) -> None:
    store.save_patterns({}, seq=1)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == [path.name, path.name + "-shm", path.name + "-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_what_was_saved_is_there_after_a_restart(store: Store, open_store: Callable[..., Store]) -> None:
    store.save_state("stats", b'{"total":"\xc3\xa9"}')
    store.save_state("stats", b'{"total":6}')
    store.save_patterns({"p1": PATTERN}, seq=7)
    store.save_playbook(PLAYBOOK, seq=9)
    store.save_told([copy("e1")])
    store.save_patterns({}, seq=7, said={DIAGNOSIS: [message("d1")]})
    store.close()
    again = open_store()
    assert [again.cursor(name) for name in ("analyzer", "consolidator", "other")] == [7, 9, 0]
    assert again.state("stats", msgspec.json.Decoder()) == {"total": 6}
    assert again.patterns() == {"p1": PATTERN}
    assert (again.playbook().cursor, entries(again)) == (9, {"e1": ENTRY})
    assert again.told() == {"sql:run": 5}
    assert again.diagnoses(OWNERS) == {"p1": DIAGNOSIS}
    assert keys_waiting(again) == ["e1", "d1"]


def test_a_saved_thing_replaces_the_one_before(store: Store) -> None:
    newer = msgspec.structs.replace(PATTERN, count=3, last_seq=8)
    store.save_patterns({"p1": PATTERN}, seq=7)
    store.save_patterns({"p1": newer}, seq=8)
    better = msgspec.structs.replace(ENTRY, version=2)
    store.save_playbook(PLAYBOOK, seq=9)
    store.save_playbook([part(better)], seq=9)
    assert (store.patterns(), entries(store)) == ({"p1": newer}, {"e1": better})
    store.save_playbook([Row(Section.ENTRY, "e1", 0, b"")], seq=10)
    assert entries(store) == {}


def test_a_playbook_that_was_made_anew_takes_the_place_of_all_there_was(store: Store) -> None:
    store.save_playbook(PLAYBOOK, seq=9)
    other = msgspec.structs.replace(ENTRY, id="e2")
    store.save_playbook([part(other)], seq=8, whole=True)
    assert (store.playbook().cursor, entries(store)) == (8, {"e2": other})


def test_what_the_gateway_was_told_by_an_older_version_stays_told(path: Path, open_store: Callable[..., Store]) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        for statement in MIGRATIONS[0]:
            old.execute(statement)
        old.execute("PRAGMA user_version = 1")
        record = '{"id":"e1","endpoint":"sql:run","successes":9,"sent_successes":8}'
        old.execute("INSERT INTO entries VALUES ('e1', 'sql:run', 9, ?)", (record,))
        old.execute("INSERT INTO cursors VALUES ('consolidator', 9)")
    store = open_store()
    assert (store.set_aside, store.told(), store.cursor("consolidator")) == (None, {"sql:run": 8}, 0)
    assert entries(store) == {}


def test_the_same_evidence_is_diagnosed_and_announced_once(store: Store) -> None:
    asked = msgspec.structs.replace(PATTERN, diagnosed_seq=7)
    assert store.save_patterns({"p1": PATTERN}, seq=7, said={DIAGNOSIS: [message("d1")]}) == Saved(queued=1)
    again = msgspec.structs.replace(DIAGNOSIS, text="another")
    assert store.save_patterns({"p1": asked}, seq=7, said={again: [message("d2")]}) == Saved()
    assert store.diagnoses(OWNERS) == {"p1": DIAGNOSIS}
    assert store.patterns() == {"p1": asked}
    assert keys_waiting(store) == ["d1"]


def test_the_newest_diagnoses_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "DIAGNOSES_MAX", 2)
    for key in "abcd":
        store.save_patterns({}, seq=7, said={said_of(key, key): ()})
    assert list(store.diagnoses({key: msgspec.structs.replace(PATTERN, id=key) for key in "abcd"})) == ["c", "d"]


def test_what_was_said_last_of_a_pattern_is_found_under_the_id_that_it_has_now(store: Store) -> None:
    for pattern, key in [("p1", "a"), ("absorbed", "b"), ("p2", "c"), ("p1", "d"), ("gone", "e")]:
        store.save_patterns({}, seq=7, said={said_of(pattern, key): ()})
    other = msgspec.structs.replace(PATTERN, id="p2", aliases=("absorbed",))
    never = msgspec.structs.replace(PATTERN, id="p3")
    said = store.diagnoses(by_any_id([PATTERN, other, never]))
    assert {pattern: diagnosis.key for pattern, diagnosis in said.items()} == {"p1": "d", "p2": "c"}


def test_to_load_what_was_said_takes_no_more_memory_than_what_is_kept_of_it(store: Store) -> None:
    for number in range(200):
        store.save_patterns({}, seq=7, said={said_of("p1", str(number), text="x" * 20_000): ()})
    tracemalloc.start()
    try:
        assert store.diagnoses(OWNERS)["p1"].key == "199"
        assert tracemalloc.get_traced_memory()[1] < 200_000  # 4 MB are in the file
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------- the outbox


def test_messages_leave_in_the_order_they_came(store: Store) -> None:
    assert enqueue(store, "ab") == Saved(queued=2)
    first = store.head(Lane.GATEWAY)
    assert first == Queued("a", "/log", b'{"of":"a"}', 0, 0.0, 0.0)
    assert first.wait_seconds(0) == 0
    assert store.delivered(first.key)
    assert keys_waiting(store) == ["b"]


def test_what_follows_a_failed_message_waits_with_it(store: Store) -> None:
    enqueue(store, "ab")
    head = store.head(Lane.GATEWAY)
    assert head is not None
    store.failed(head.key, "refused connection", now=100, next_at=105)
    waiting = store.head(Lane.GATEWAY)
    assert waiting == msgspec.structs.replace(head, attempts=1, tried_at=100, next_at=105)
    assert [waiting.wait_seconds(now) for now in (104, 104.5, 105)] == [1, 0.5, 0]


def test_a_clock_that_was_set_back_does_not_hold_messages_up(store: Store) -> None:
    enqueue(store, "a")
    store.failed("a", "down", now=10_000, next_at=10_300)
    head = store.head(Lane.GATEWAY)
    assert head is not None
    assert (head.wait_seconds(10_000), head.wait_seconds(9_999)) == (300, 0)


def refusals(path: Path) -> list[tuple[str, str, str]]:
    """Give what a person finds who looks as docs/logs.md says, while the daemon runs: key, error and body."""
    query = re.search(r"`sqlite3 -readonly \S+ \"(.+?)\"`", (ROOT / "docs" / "logs.md").read_text())
    assert query is not None
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query[1]).fetchall()


def test_a_refused_message_is_set_aside_and_does_not_block(store: Store, path: Path) -> None:
    enqueue(store, "ab")
    assert store.refused("a", "status 400")
    assert refusals(path) == [("a", "status 400", '{"of":"a"}')]
    assert enqueue(store, "a") == Saved()
    assert keys_waiting(store) == ["b"]


@pytest.mark.parametrize("settle", ["delivered", "refused", "waiting"])
def test_a_key_is_queued_once(store: Store, settle: str) -> None:
    enqueue(store, "a")
    if settle == "delivered":
        store.delivered("a")
    elif settle == "refused":
        store.refused("a", "no")
    assert enqueue(store, "aa") == Saved()
    assert store.save_patterns({}, seq=7, said={DIAGNOSIS: [message("a")]}) == Saved()
    assert store.save_told([copy("a")]) == Saved()


def test_beyond_the_bound_the_oldest_is_dropped_and_counted(store: Store) -> None:
    assert enqueue(store, "abcde") == Saved(queued=5, dropped={Lane.GATEWAY: 2})
    assert store.save_told([copy("f")]) == Saved(queued=1, dropped={Lane.GATEWAY: 1})
    assert store.statistics()[Lane.GATEWAY].dropped == 3
    assert enqueue(store, "a") == Saved()
    assert keys_waiting(store) == ["d", "e", "f"]


def test_a_message_that_was_dropped_while_it_was_sent_is_counted_as_dropped(store: Store) -> None:
    enqueue(store, "a")
    enqueue(store, "bcd")
    assert not store.delivered("a")
    assert not store.refused("a", "no")
    assert store.statistics()[Lane.GATEWAY] == LaneStatistics(pending=3, dropped=1)


def test_settled_messages_are_remembered_within_a_bound(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "REMEMBERED_MAX", 2)
    monkeypatch.setattr(learned, "REFUSED_MAX", 1)
    for key in "abc":
        enqueue(store, key)
        keys_waiting(store)
    for key in "xy":
        enqueue(store, key)
        head = store.head(Lane.GATEWAY)
        assert head is not None
        store.refused(head.key, "no")
    assert [key for key, _, _ in refusals(path)] == ["y"]
    assert enqueue(store, "bcy") == Saved()
    assert enqueue(store, "ax") == Saved(queued=2)


def test_the_numbers_are_told(store: Store) -> None:
    store.save_patterns({"p1": PATTERN}, seq=7)
    store.save_playbook(PLAYBOOK, seq=9)
    store.save_told([copy("a")])
    store.save_patterns({}, seq=7, said={DIAGNOSIS: [message("b"), message("c")]})
    store.delivered("a")
    store.refused("b", "status 400")
    store.failed("c", "down", now=1, next_at=2)
    assert store.statistics() == {
        Lane.GATEWAY: LaneStatistics(pending=1, delivered=1, refused=1),
        Lane.WEBHOOK: LaneStatistics(),
    }


def test_each_receiver_has_numbers_of_its_own(store: Store) -> None:
    news = [webhook_message(f"w{number}", PATTERN) for number in range(4)]
    assert store.save_state("standings", b"{}", news[:2]) == Saved(queued=2)
    store.delivered("w0")
    store.save_state("standings", b"{}", news[2:3])
    store.refused("w1", "status 400")
    enqueue(store, "ab")
    assert store.save_state("standings", b"{}", news[3:]) == Saved(queued=1)
    assert enqueue(store, "cd") == Saved(queued=2, dropped={Lane.GATEWAY: 1})
    assert store.statistics() == {
        Lane.GATEWAY: LaneStatistics(pending=3, dropped=1),
        Lane.WEBHOOK: LaneStatistics(pending=2, delivered=1, refused=1),
    }


def test_a_receiver_that_is_away_pushes_out_no_message_for_the_other(store: Store) -> None:
    enqueue(store, "a")
    for number in range(2 * OUTBOX_MAX):
        store.save_state("standings", b"{}", [webhook_message(f"w{number}", PATTERN)])
    assert store.statistics() == {
        Lane.GATEWAY: LaneStatistics(pending=1),
        Lane.WEBHOOK: LaneStatistics(pending=OUTBOX_MAX, dropped=OUTBOX_MAX),
    }
    head = store.head(Lane.WEBHOOK)
    assert head is not None
    assert head.key == f"w{OUTBOX_MAX}"


def test_what_was_counted_before_receivers_were_told_apart_is_put_down_to_none(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("INSERT INTO counters (name, n) VALUES ('delivered', 7), ('dropped', 5)")
    assert store.statistics() == {lane: LaneStatistics() for lane in Lane}


@settings(max_examples=30, stateful_step_count=30, deadline=None)
class OutboxMachine(RuleBasedStateMachine):
    """The outbox and a list, side by side."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / LEARNED_PATH
        self.store = Store.open(self.path, outbox_max=OUTBOX_MAX)
        self.waiting: list[str] = []
        self.ever: set[str] = set()
        self.counts = {"delivered": 0, "refused": 0, "dropped": 0}

    @rule(keys=st.lists(st.integers(0, 30).map(str), max_size=5))
    def enqueue(self, keys: list[str]) -> None:
        new = [key for key in dict.fromkeys(keys) if key not in self.ever]
        self.ever.update(new)
        self.waiting += new
        dropped = max(0, len(self.waiting) - OUTBOX_MAX)
        self.waiting = self.waiting[dropped:]
        self.counts["dropped"] += dropped
        assert enqueue(self.store, keys) == Saved(queued=len(new), dropped={Lane.GATEWAY: dropped} if dropped else {})

    @precondition(lambda self: self.waiting)
    @rule(outcome=st.sampled_from(["delivered", "refused", "failed"]))
    def send(self, outcome: str) -> None:
        head = self.store.head(Lane.GATEWAY)
        assert head is not None
        if outcome == "failed":
            self.store.failed(head.key, "down", now=0, next_at=0)
            return
        self.counts[outcome] += 1
        assert self.waiting.pop(0) == head.key
        assert self.store.delivered(head.key) if outcome == "delivered" else self.store.refused(head.key, "no")

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.path, outbox_max=OUTBOX_MAX)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "store"):
            return
        head, numbers = self.store.head(Lane.GATEWAY), self.store.statistics()[Lane.GATEWAY]
        assert (head.key if head else None) == (self.waiting[0] if self.waiting else None)
        assert numbers.pending == len(self.waiting)
        assert {name: getattr(numbers, name) for name in self.counts} == self.counts

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestOutboxAgainstAList = OutboxMachine.TestCase


# --------------------------------------------------------------------------------- all of it or nothing


def everything(store: Store) -> object:
    return (
        store.patterns(),
        entries(store),
        store.told(),
        store.diagnoses(OWNERS),
        [store.cursor(name) for name in ("analyzer", "consolidator")],
        store.state("standings", msgspec.json.Decoder()),
        store.head(Lane.GATEWAY),
        store.statistics(),
    )


@pytest.mark.parametrize(
    "save",
    [
        lambda store: store.save_patterns(
            {"p1": PATTERN, "p2": PATTERN},
            seq=7,
            snapshots={"doubts": b"{}"},
            said={DIAGNOSIS: [message("x"), message("y")], said_of("p1", "k2"): [message("z")]},
        ),
        lambda store: store.save_playbook(PLAYBOOK, seq=9, whole=True),
        lambda store: store.save_told([copy("x"), copy("y")]),
        lambda store: store.save_state("standings", b"{}", [message(key) for key in "wxyz"]),
        lambda store: store.delivered("a"),
        lambda store: store.refused("a", "no"),
        lambda store: store.failed("a", "down", now=1, next_at=2),
    ],
    ids=["patterns", "playbook", "told", "standings", "delivered", "refused", "failed"],
)
def test_a_crash_between_any_two_statements_leaves_all_or_nothing(
    save: Callable[[Store], object], path: Path, tmp_path: Path, open_store: Callable[..., Store]
) -> None:
    """The file and its log are copied just before each statement: that is what SIGKILL would leave there."""
    copies: list[Path] = []
    watching = False

    def copy_the_files(_statement: str) -> None:
        if watching:
            copies.append(tmp_path / f"crash-{len(copies)}" / path.name)
            copies[-1].parent.mkdir()
            for suffix in ("", "-wal"):
                shutil.copy(f"{path}{suffix}", f"{copies[-1]}{suffix}")

    store = open_store(trace=copy_the_files)
    enqueue(store, "ab")
    before = everything(store)
    watching = True
    save(store)
    watching = False
    after = everything(store)
    assert before != after
    assert len(copies) >= 3
    assert [everything(open_store(copy)) for copy in copies] == [before] * len(copies)


def test_a_save_that_fails_saves_nothing(store: Store) -> None:
    with pytest.raises(StoreFailed, match="CHECK"):
        store.save_patterns({"p1": PATTERN}, seq=-1)
    assert store.patterns() == {}
    store.save_patterns({"p1": PATTERN}, seq=7)
    assert store.patterns() == {"p1": PATTERN}


# ------------------------------------------------------------------------------------ versions, damage


def test_a_file_of_a_newer_version_is_left_alone(store: Store, path: Path) -> None:
    store.save_patterns({}, seq=3)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE newer (x)")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(FormatUnknown, match=r"has version"):
        Store.open(path, outbox_max=OUTBOX_MAX)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_who_looks_into_a_file_that_nobody_has_open_makes_nothing_beside_it(store: Store, path: Path) -> None:
    store.save_playbook(PLAYBOOK, seq=9)
    store.close()
    rows, _ = read_playbook(path)
    assert rows == PLAYBOOK
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_migration_that_was_cut_short_is_done_anew(
    path: Path, tmp_path: Path, open_store: Callable[..., Store]
) -> None:
    copies = itertools.count()

    def copy_the_files(_statement: str) -> None:
        copy = tmp_path / f"crash-{next(copies)}" / path.name
        copy.parent.mkdir()
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")

    whole = everything(open_store(trace=copy_the_files))
    for folder in sorted(tmp_path.glob("crash-*")):
        copied = open_store(folder / path.name)
        assert (everything(copied), copied.set_aside) == (whole, None)
    assert next(copies) > sum(map(len, MIGRATIONS))


def damage(path: Path, table: str) -> None:
    """Overwrite the page that a table begins with."""
    connection = sqlite3.connect(path)
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)


def with_content(open_store: Callable[..., Store]) -> None:
    store = open_store()
    store.save_patterns({"p1": PATTERN}, seq=7)
    enqueue(store, "abcd")
    store.delivered("b")
    store.refused("c", "status 400")
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE patterns SET record = '{}'",
        "INSERT INTO playbook (section, key, seq, record) VALUES ('entry', 'a', 1, '[]')",
        "INSERT INTO playbook (section, key, seq, record) VALUES ('other', 'a', 1, '{}')",
        "INSERT INTO diagnoses (evidence, record) VALUES ('k', '{}')",
        "UPDATE patterns SET record = CAST(x'7b22fffe' AS TEXT)",
        "UPDATE outbox SET error = CAST(x'fffe' AS TEXT) WHERE key = 'b'",
        "ALTER TABLE cursors RENAME TO other",
    ],
)
def test_what_opens_and_cannot_be_read_is_damaged_too(
    path: Path, open_store: Callable[..., Store], statement: str
) -> None:
    with_content(open_store)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(statement)
    connection.commit()
    connection.close()
    store = open_store()
    assert store.set_aside == path.with_name(path.name + ".corrupt-1")
    assert (store.patterns(), store.cursor("analyzer")) == ({}, 0)
    assert keys_waiting(store) == ["d"]


@pytest.mark.parametrize(("byte", "value"), [(63, 0), (63, 1), (63, 3), (61, 1), (60, 0x80)])
def test_a_version_that_the_tables_do_not_bear_out_is_damage(
    path: Path, open_store: Callable[..., Store], byte: int, value: int
) -> None:
    with_content(open_store)
    with path.open("r+b") as file:
        file.seek(byte)
        file.write(bytes([value]))
    refuse_newer(path)
    store = open_store()
    assert store.set_aside == path.with_name(path.name + ".corrupt-1")
    assert (store.patterns(), store.cursor("analyzer")) == ({}, 0)
    assert keys_waiting(store) == ["d"]


def test_whatever_byte_of_the_head_has_rotted_the_file_opens_or_is_set_aside(tmp_path: Path, path: Path) -> None:
    store = Store.open(path, outbox_max=OUTBOX_MAX)
    store.save_patterns({}, seq=3)
    store.close()
    whole = path.read_bytes()
    kept: list[int] = []
    for at in set(range(HEAD_BYTES)) - {WRITE_VERSION}:
        rotten = tmp_path / str(at) / path.name
        rotten.parent.mkdir()
        rotten.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        refuse_newer(rotten)
        with closing(Store.open(rotten, outbox_max=OUTBOX_MAX)) as store:
            if store.set_aside is None:
                kept.append(store.cursor("analyzer"))
            store.save_patterns({}, seq=4)
    assert set(kept) == {3}


def test_each_version_has_tables_of_its_own() -> None:
    """By them a newer version is told from a number that has rotted."""
    seen: list[object] = []
    with closing(sqlite3.connect(":memory:")) as connection:
        for statements in MIGRATIONS:
            for statement in statements:
                connection.execute(statement)
            seen.append(sorted(connection.execute("SELECT type, name, sql FROM sqlite_schema")))
    assert all(seen.count(tables) == 1 for tables in seen)


def test_an_index_that_names_a_settled_message_as_waiting_is_damage(
    path: Path, open_store: Callable[..., Store]
) -> None:
    """Such a message would be sent for ever: the index finds it, and noting its delivery changes nothing."""
    with_content(open_store)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    other_columns = "replace(sql, 'state, id', 'key, id')"
    connection.execute(f"UPDATE sqlite_schema SET sql = {other_columns} WHERE name = 'outbox_by_state'")  # noqa: S608
    connection.commit()
    connection.close()
    store = open_store()
    assert store.set_aside is not None
    assert keys_waiting(store) == ["d"]


def test_a_damaged_file_is_set_aside_and_what_can_be_read_of_the_outbox_goes_on(
    path: Path, open_store: Callable[..., Store]
) -> None:
    with_content(open_store)
    damage(path, "patterns")
    damaged = path.read_bytes()
    store = open_store()
    assert store.set_aside == path.with_name(path.name + ".corrupt-1")
    assert store.set_aside.read_bytes() == damaged
    assert (store.patterns(), store.cursor("analyzer")) == ({}, 0)
    assert [(key, error) for key, error, _ in refusals(path)] == [("c", "status 400")]
    assert enqueue(store, "abcd") == Saved()
    assert keys_waiting(store) == ["d"]


def test_a_file_that_is_no_database_is_set_aside_beside_those_before(
    path: Path, open_store: Callable[..., Store]
) -> None:
    for number in (1, 2):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no database %d " % number * 1_000)
        store = open_store()
        assert store.set_aside == path.with_name(f"{path.name}.corrupt-{number}")
        assert store.set_aside.read_bytes().startswith(b"no database %d" % number)
        store.save_patterns({}, seq=number)
        store.close()
    store = open_store()
    assert (store.set_aside, store.cursor("analyzer")) == (None, 2)


def test_a_rebuilding_that_was_cut_short_is_gone_on_with(path: Path, open_store: Callable[..., Store]) -> None:
    with_content(open_store)
    path.rename(path.with_name(path.name + ".rebuilt"))  # the damaged one has been renamed, the new one not yet
    assert keys_waiting(open_store()) == ["d"]


def test_a_rebuilding_that_was_cut_short_early_begins_anew(path: Path, open_store: Callable[..., Store]) -> None:
    with_content(open_store)
    damage(path, "patterns")
    path.with_name(path.name + ".rebuilt").write_bytes(b"half")
    assert keys_waiting(open_store()) == ["d"]


def test_a_record_that_cannot_be_read_is_an_error_of_ours(store: Store, path: Path) -> None:
    store.save_patterns({"p1": PATTERN}, seq=7)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE patterns SET record = '{}'")
    connection.close()
    with pytest.raises(StoreFailed, match="not a Pattern"):
        store.patterns()


def test_a_folder_that_cannot_be_made_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskFailed):
        Store.open(tmp_path / "file" / LEARNED_PATH, outbox_max=OUTBOX_MAX)


def test_what_sqlite_refuses_says_what_to_do(tmp_path: Path) -> None:
    def run(path: Path, script: str) -> None:
        with files.translated(), closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.executescript(script)

    def refused(kind: type[ObserverError], path: Path, script: str = "") -> str:
        with pytest.raises(kind) as told:
            run(path, script)
        return told.value.hint

    path, insert = tmp_path / "s.sqlite3", "INSERT INTO t VALUES (zeroblob(100000))"
    with closing(sqlite3.connect(path)) as other:
        other.executescript("CREATE TABLE t (b BLOB); BEGIN IMMEDIATE")
        assert "another program" in refused(StoreBusy, path, insert)
    assert "make room" in refused(DiskFull, path, f"PRAGMA max_page_count = 3; {insert}")
    assert "must belong to" in refused(DiskFailed, path, f"PRAGMA query_only = 1; {insert}")
    assert "must belong to" in refused(DiskFailed, tmp_path / "missing" / "s.sqlite3")
    with pytest.raises(DiskFull, match="No space") as told, files.translated():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "make room" in told.value.hint


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_lack_of_file_descriptors_is_no_matter_of_whose_the_directory_is(path: Path, left: int) -> None:
    """With none left it is the system that refuses; with one or two SQLite does, and does not say why."""
    path.parent.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(left + 1)]
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), hard))
    try:
        with pytest.raises(DiskFailed) as told:
            Store.open(path, outbox_max=OUTBOX_MAX)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "more open files" in told.value.hint


def test_a_file_that_another_program_holds_is_worth_another_try(
    path: Path, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BUSY_SECONDS", 0.0)
    store = open_store()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy) as raised:
        store.save_patterns({}, seq=1)
    assert raised.value.retryable
    other.close()
    store.save_patterns({}, seq=1)
    assert store.cursor("analyzer") == 1


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreFailed, match="closed"):
        store.cursor("analyzer")
