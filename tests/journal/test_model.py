"""Random actions on writer, reader, sealing and disk together, against a list."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from observer_actors.errors import DiskFailed
from observer_actors.journal import JournalReader, Query, compact, retain, verify
from observer_actors.journal.format import event_us
from observer_actors.op import Op
from observer_actors.settings import JournalSettings
from tests.fakes.disk import FakeDisk
from tests.journal.support import DATA, Clock, make_op, open_writer, seq_known

SETTINGS = JournalSettings(segment_bytes_max=1_500, dedup_window_ops=8)
KINDS = ["write", "datasync", "truncate", "rename", "remove", "sync_directory", "open_append", "any"]


class JournalMachine(RuleBasedStateMachine):
    """`model` is what was acknowledged; `maybe` is a batch whose commit failed or was cut off by a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = FakeDisk(1)
        self.clock = Clock()
        self.settings = SETTINGS
        self.model: list[Op] = []
        self.removed = 0
        self.count = 0
        self.writer = open_writer(self.disk, SETTINGS, self.clock)
        self.reader = JournalReader(self.disk, DATA, self.writer.catalog)

    def batch(self, size: int, pad: int) -> list[Op]:
        ops = []
        for _ in range(size):
            self.count += 1
            op_id = f"id-{self.count}" if self.count % 2 else None
            ops.append(make_op(self.count, id_=op_id, pad=pad, success=self.count % 4 > 0))
        return ops

    @rule(size=st.integers(1, 6), pad=st.sampled_from([0, 0, 700, 5_000]), step=st.integers(-5, 50))
    def commit(self, size: int, pad: int, step: int) -> None:
        self.clock.now_us += step
        batch = self.batch(size, pad)
        self.writer.stamp(batch)
        try:
            self.writer.commit(batch)
        except DiskFailed:
            return
        self.model += batch

    @rule(kind=st.sampled_from(KINDS), after=st.integers(0, 6), times=st.integers(1, 4))
    def let_fail(self, kind: str, after: int, times: int) -> None:
        self.disk.fail(kind, after=after, times=times)  # type: ignore[arg-type]

    @rule()
    def fill(self) -> None:
        self.disk.quota_bytes = self.disk.used_bytes() + 900

    @rule()
    def heal(self) -> None:
        self.disk.heal()
        self.disk.quota_bytes = None

    @rule(short=st.booleans())
    def write_short(self, *, short: bool) -> None:
        self.disk.short_writes = short

    @rule()
    def seal(self) -> None:
        with suppress(DiskFailed):
            self.writer.seal()

    @rule(compress=st.booleans())
    def compact(self, *, compress: bool) -> None:
        chosen = msgspec.structs.replace(self.settings, compress=compress)
        with suppress(DiskFailed):
            compact(self.disk, DATA, self.writer.catalog, chosen)

    @rule(kept=st.integers(500, 5_000))
    def retain(self, kept: int) -> None:
        chosen = msgspec.structs.replace(self.settings, retained_bytes_max=kept)
        with suppress(DiskFailed):
            retain(self.disk, DATA, self.writer.catalog, chosen, now_us=self.clock())
        self.removed = max(self.removed, self.reader.first_seq - 1)

    @rule()
    def reopen(self) -> None:
        self.heal()
        self.writer.close()
        self.start()

    @rule(in_hand=st.integers(1, 4))
    def restart_persister(self, in_hand: int) -> None:
        """A batch is in hand, perhaps written, never acknowledged; the next writer is told, and writes it anew."""
        batch = self.batch(in_hand, 0)
        self.writer.stamp(batch)
        with suppress(DiskFailed):
            self.writer.commit(batch)
        self.heal()
        self.start(unacknowledged_from=batch[0].seq)
        self.writer.stamp(batch)
        self.writer.commit(batch)
        self.model += batch

    @rule(seed=st.integers(0, 2**16), size=st.integers(0, 6), pad=st.sampled_from([0, 700, 5_000]))
    def crash(self, seed: int, size: int, pad: int) -> None:
        """Power is lost while a batch is being written: whatever prefix or mixture of it the disk has taken."""
        self.heal()
        batch = self.batch(size, pad)
        if batch:
            self.writer.stamp(batch)
            self.disk.fail("datasync")
            self.disk.fail("truncate", times=9)
            self.disk.fail("rename", times=9)
            with suppress(DiskFailed):
                self.writer.commit(batch)
        self.disk = self.disk.crash(seed)
        self.start(maybe=batch)

    def start(self, unacknowledged_from: int | None = None, maybe: list[Op] | None = None) -> None:
        self.writer = open_writer(self.disk, SETTINGS, self.clock, unacknowledged_from)
        self.reader = JournalReader(self.disk, DATA, self.writer.catalog)
        assert self.writer.recovery.damaged_lines == 0
        assert self.writer.recovery.problems == ()
        self.removed = max(self.removed, self.reader.first_seq - 1)
        held = self.reader.read(0, 10**6)
        surplus = held[len(self.model) - self.removed :]
        if unacknowledged_from is not None:
            assert surplus == []
        # What was written and not acknowledged may be there, in order and whole; nothing else may.
        for op in surplus:
            assert op.seq == len(self.model) + 1
            self.model.append(op)
        for op in surplus if maybe is not None else []:
            assert op.input_summary in {given.input_summary for given in self.written}

    @property
    def written(self) -> list[Op]:
        return [make_op(number, pad=pad) for number in range(self.count + 1) for pad in (0, 700, 5_000)]

    @invariant()
    def every_acknowledged_op_is_there_once(self) -> None:
        failures, self.disk._failures = self.disk._failures, {}  # noqa: SLF001 - reads must not use them up
        assert self.reader.read(0, 10**6) == self.model[self.removed :]
        assert self.writer.last_seq == len(self.model)
        assert [op.seq for op in self.model] == list(range(1, len(self.model) + 1))
        times = [op.recorded_at for op in self.model]
        assert times == sorted(times)
        self.disk._failures = failures  # noqa: SLF001

    @rule(
        newest=st.booleans(),
        limit=st.integers(1, 7),
        source=st.sampled_from([None, "bot", "mcp"]),
        endpoint=st.sampled_from([None, "tool:0"]),
        success=st.sampled_from([None, True, False]),
        after=st.one_of(st.none(), st.integers(0, 40)),
        before=st.one_of(st.none(), st.integers(0, 60)),
        since=st.one_of(st.none(), st.integers(0, 60)),
        until=st.one_of(st.none(), st.integers(0, 60)),
        budget=st.sampled_from([1, 5, 10**6]),
    )
    def query(  # noqa: PLR0913 - one parameter for each filter
        self, *, newest: bool, limit: int, source: str | None, endpoint: str | None, success: bool | None,
        after: int | None, before: int | None, since: int | None, until: int | None, budget: int,
    ) -> None:  # fmt: skip
        self.heal()
        base = event_us(make_op(0).timestamp, "")
        asked = Query(
            source=source, endpoint=endpoint, success=success, newest_first=newest, limit=limit,
            after_seq=after, before_seq=before, scanned_ops_max=budget,
            since_us=None if since is None else base + since * 1_000_000,
            until_us=None if until is None else base + until * 1_000_000,
        )  # fmt: skip
        expected = [
            op for op in self.model[self.removed :]
            if asked.fits(op) and op.seq > (after or 0) and (before is None or op.seq < before)
        ]  # fmt: skip
        got: list[Op] = []
        pages = 0
        while True:
            page = self.reader.query(asked)
            assert len(page.ops) <= limit
            got += page.ops
            pages += 1
            assert pages < 1_000
            if page.cursor is None:
                break
            asked = msgspec.structs.replace(asked, **{"before_seq" if newest else "after_seq": page.cursor})
        assert got == (expected[::-1] if newest else expected)

    @precondition(lambda self: self.count)
    @rule(back=st.integers(0, 30))
    def ask_for_an_id(self, back: int) -> None:
        """The window counts ops; an id within it is known, one beyond it is not."""
        at = len(self.model) - 1 - back
        if at < 0 or not isinstance(self.model[at].id, str):
            return
        op = self.model[at]
        assert isinstance(op.id, str)
        if back >= SETTINGS.dedup_window_ops:
            assert seq_known(self.writer, op.id) is None
        elif op.seq > self.removed:  # else known unless the writer was opened since it was removed
            assert seq_known(self.writer, op.id) == op.seq

    def teardown(self) -> None:
        self.reopen()
        self.every_acknowledged_op_is_there_once()
        compact(self.disk, DATA, self.writer.catalog, SETTINGS)
        self.every_acknowledged_op_is_there_once()
        report = verify(DATA, disk=self.disk, in_use=False)
        assert [f for f in report.findings if f.severity == "damage"] == []
        assert all(".torn-" in finding.file for finding in report.findings)
        assert (report.ops, report.last_seq) == (len(self.model) - self.removed, len(self.model))


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
