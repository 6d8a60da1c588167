"""The consolidator: the journal's fold into the playbook, and the gateway's copy of what works.

It follows the journal with a feed of its own, a few ops at a time: others have their turn in between, and under load it
falls behind, for the journal waits for it. The playbook lives in memory; what has changed is saved, with the cursor
that belongs to it, a moment later. A crash loses nothing, for the cursor was not saved either.

When evidence is revoked the playbook is made anew from the journal, beside the one that goes on being served, in which
the entries that may be touched are suspended; then one takes the other's place. What a person decides holds from the
moment it is in the journal, however far the playbook is behind it: nothing that a revocation may touch is given out
until the two meet, and an entry is given as it was decided about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.commits import Feed, ReadBlock
from observer_actors.actors.cycle import Cycle
from observer_actors.actors.learned import Learned
from observer_actors.actors.saving import saved
from observer_actors.op import Op
from observer_actors.playbook import Action, Corroboration, Decision, Entry, Playbook, Revocation, Row, State, copies
from observer_actors.playbook.decisions import marked
from observer_actors.playbook.deltas import Delta, touched
from observer_actors.playbook.fold import REVOCATIONS_MAX
from observer_actors.playbook.lift import Sides
from observer_actors.store import Shelf
from observer_actors.supervision import Life

TURN_S: Final = 0.000_25
"""How long it works, on one op at least, before it gives the event loop back. Under load it does one such turn in each
lull (`Commits.lull`), which mostly lasts longer than this."""
PAUSE_S: Final = 0.002_5
"""Before it waits for the next lull where many callers share each commit: they are waiting for the event loop, too."""
MANY_A_COMMIT: Final = 16
MANY_A_SECOND: Final = 100
"""With fewer events, a turn at any time holds up few of them, and lulls are rare."""
LOOK_AT_LOAD_S: Final = 0.05
"""How often it looks at both."""
SHOW_S: Final = 0.002_5
"""Between two turns for the shelf alone."""
ROWS_AT_ONCE: Final = 20
SAVE_S: Final = 2.0
SAVE_BUDGET_S: Final = 1.0
LOOK_S: Final = 0.5
"""How often it looks whether the playbook has to be made anew."""
FORGET_S: Final = 60.0
"""Between two looks at where the journal begins."""
AHEAD_MAX: Final = 100
"""What persons have decided, and the playbook has not come to yet; more is refused where it is asked for."""


class Consolidator:
    """The actor, and the playbook as others may read it.

    :param read: reads the journal, for making the playbook anew.
    :param every: cycles from one look at what the gateway should be told to the next.
    """

    def __init__(
        self,
        feed: Feed,
        learned: Learned,
        shelf: Shelf,
        cycle: Cycle,
        read: ReadBlock,
        *,
        every: int,
        log: FilteringBoundLogger,
        corroboration: Corroboration,
    ) -> None:
        self._feed = feed
        self._learned = learned
        self._shelf = shelf
        self._cycle = cycle
        self._read = read
        self._every = every
        self._log = log
        self._corroboration = corroboration
        self._playbook = Playbook(corroboration)
        self._told: dict[str, int] = {}
        self._turn = trio.Lock()
        """Whoever changes the playbook, or reads all of it, has it."""
        self._anew_in_hand: tuple[Playbook, Sequence[Op]] | None = None
        """What a playbook that is made anew is taking in; after a crash its cursor says at which op that was."""
        self._unshown: dict[str, None] = {}
        """Ids of entries whose copy on the shelf is out of date, the oldest change first."""
        self._is_behind = trio.Event()
        self._is_new = False
        """The playbook was made anew, and none of it is saved."""
        self._left_out = (0, 0)
        """Ops and entries that had found no room when that was last warned of."""
        self._expected: list[Decision | Revocation] = []
        """What persons have decided and is in the journal, in its order: at least what the playbook has not taken in
        yet (`_ahead`)."""
        self._from_seq = inf
        """Nothing is handed out before the playbook has taken in all up to this seq: there may be revocations in it.
        Not known before the journal has been opened, and in each incarnation another."""
        self._seen_at, self._seen_ops, self._seen_lulls = -inf, 0, 0
        """When the load was looked at, and the end of the journal, and the lulls until then."""
        self._many_come = self._many_share = False

    @property
    def playbook(self) -> Playbook:
        """The playbook as of now; another object once it was made anew."""
        return self._playbook

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Id -> entry, as of now."""
        return self._playbook.entries

    def drawn(self, run: str, entry: str) -> bool | None:
        """Say whether a run is exposed to an entry, by their names; None when it has not been drawn."""
        return self._playbook.ledger.trials.drawn(run, entry)

    def entry(self, key: str) -> Entry | None:
        """Give an entry as of now, to be handed out; None when there is none, or it may have been taken back."""
        entry = self._playbook.entries.get(key)
        return None if entry is None or self.is_taken_back(entry) else self.as_decided(entry)

    @property
    def suspended(self) -> int:
        """Entries that are not handed out until the playbook has been made anew."""
        return sum(map(self.is_taken_back, self.entries.values()))

    @property
    def expects_more(self) -> bool:
        """Whether there is room for one more that is to hold before the playbook has come to it."""
        return len(self._ahead()) < AHEAD_MAX

    def expect(self, decided: Decision | Revocation) -> None:
        """Let hold what is in the journal now; call it in the order of `seq`."""
        self._expected = [*self._ahead(), decided]
        if isinstance(decided, Decision) and (entry := self._playbook.ledger.find(decided.entry)) is not None:
            self._shelf.put(self.as_decided(entry))

    def has_room_for(self, revocation: Revocation) -> bool:
        """Say whether one more revocation finds room. One that takes in earlier ones has their place."""
        newest = msgspec.structs.replace(revocation, seq=self._feed.end + 1)
        ahead = [one for one in self._ahead() if isinstance(one, Revocation)]
        others = [one for one in (*self._playbook.meta.revocations, *ahead) if not newest.takes_in(one)]
        return len(others) < REVOCATIONS_MAX

    def as_decided(self, entry: Entry) -> Entry:
        """Give an entry of the playbook as persons have decided of it by now; its version and notes may be to come."""
        for one in self._ahead():
            if isinstance(one, Decision) and one.entry in (entry.id, *entry.also):
                entry = _decided(entry, one.action)
        return entry

    def hands_out(self, entry: Entry) -> bool:
        """Say whether an entry may be handed out now."""
        return self.as_decided(entry).available and not self.is_taken_back(entry)

    def is_taken_back(self, entry: Entry) -> bool:
        """Say whether an entry may come from what was revoked, or nobody knows that yet."""
        playbook = self._playbook
        if playbook.cursor < self._from_seq or playbook.suspends(entry.endpoint):
            return True
        return any(isinstance(one, Revocation) and playbook.may_touch(one, entry.endpoint) for one in self._ahead())

    def _ahead(self) -> list[Decision | Revocation]:
        cursor = self._playbook.cursor
        if self._expected and self._expected[0].seq <= cursor:
            self._expected = [one for one in self._expected if one.seq > cursor]
        return self._expected

    async def reached(self, seq: int) -> None:
        """Wait until everything up to ``seq`` is in the playbook; give it a deadline from outside."""
        await self._feed.reached(seq)

    async def run(self, life: Life) -> None:
        """Serve as an actor."""
        life.at("loading")
        playbook = await self._learned.load_playbook()
        self._told = await self._learned.load_told()
        if not playbook.cursor:
            playbook = Playbook(self._corroboration)
        playbook.set_rules(self._corroboration)
        # It may be older than the one in memory, and what that had taken in is expected no more.
        self._playbook, self._from_seq = playbook, inf
        self._is_new = False
        await self._stock()
        await self._feed.open(playbook.cursor)
        await self._note_a_crash_anew()
        life.ready()
        await self._feed.opened()
        self._from_seq = self._feed.end
        async with saved(self._save, life, every_s=SAVE_S, budget_s=SAVE_BUDGET_S, log=self._log) as nursery:
            nursery.start_soon(self._follow, life)
            nursery.start_soon(self._show_the_rest)
            if self._learned.has_gateway:  # else one that is configured later would not hear of what was told to nobody
                nursery.start_soon(self._tell_now_and_then)
            nursery.start_soon(self._make_anew_when_outdated)
            nursery.start_soon(self._forget_now_and_then)

    async def _follow(self, life: Life) -> None:
        while True:
            life.at("waiting")
            async with self._feed.take() as ops:
                life.at("consolidating")
                taken = 0
                while taken < len(ops):
                    async with self._turn:
                        taken = self._take(ops, taken)
                    await self._let_others()

    def _take(self, ops: Sequence[Op], taken: int) -> int:
        """Take ops in for one turn; give how many are taken then."""
        end = trio.current_time() + TURN_S
        taken = _take_turn(self._playbook, ops, taken, self._note, end)
        self._show(end)
        return taken

    def _note(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            self._unshown.update(dict.fromkeys(touched(delta)))

    async def _let_others(self) -> None:
        """Let others have their turn; see `TURN_S` and `PAUSE_S`."""
        self._look_at_load()
        if not self._many_come:
            await trio.lowlevel.checkpoint()
            return
        if self._many_share:
            await trio.sleep(PAUSE_S)
        await self._feed.wait_lull()

    def _look_at_load(self) -> None:
        now, before = trio.current_time(), self._seen_at
        if now - before < LOOK_AT_LOAD_S:
            return
        ops, lulls = self._feed.end - self._seen_ops, self._feed.lulls - self._seen_lulls
        self._many_come = ops >= MANY_A_SECOND * (now - before)
        self._many_share = ops >= MANY_A_COMMIT * lulls
        self._seen_at, self._seen_ops, self._seen_lulls = now, self._feed.end, self._feed.lulls

    def _show(self, end: float) -> None:
        """Bring some of what has changed to the shelf; what was changed again meanwhile only once."""
        while self._unshown and trio.current_time() < end:
            key = next(iter(self._unshown))
            del self._unshown[key]
            entry = self._playbook.entries.get(key)
            if entry is None:
                self._shelf.drop(key)
            else:
                self._shelf.put(self.as_decided(entry))
        if self._unshown:
            self._is_behind.set()

    async def _show_the_rest(self) -> None:
        """Bring the rest to the shelf, when more has changed than has its turn at once."""
        while True:
            await self._is_behind.wait()
            self._is_behind = trio.Event()
            self._show(trio.current_time() + TURN_S)
            await trio.sleep(SHOW_S)

    async def _stock(self) -> None:
        """Put on the shelf what the playbook holds, and nothing else."""
        self._unshown = {}
        for key in self._shelf.ids() - self._playbook.entries.keys():
            self._shelf.drop(key)
        for number, entry in enumerate(tuple(self._playbook.entries.values()), start=1):
            self._shelf.put(self.as_decided(entry))
            if number % ROWS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    async def _save(self) -> None:
        """Save what has changed since the last time, with the cursor; what could not be saved stays unsaved."""
        async with self._turn:
            playbook, whole = self._playbook, self._is_new
            seq = playbook.cursor
            rows = await self._rows(playbook, whole=whole)
        if not rows:
            return
        await self._learned.save_playbook(rows, seq, whole=whole)
        if playbook is self._playbook:
            playbook.kept.saved()
            self._is_new = False
        self._warn_of_bounds(playbook)

    async def _rows(self, playbook: Playbook, *, whole: bool) -> list[Row]:
        changed = playbook.kept.take()
        rows = []
        for number, part in enumerate(list(playbook.parts()) if whole else changed, start=1):
            rows.append(playbook.row(*part))
            if number % ROWS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return rows

    def _warn_of_bounds(self, playbook: Playbook) -> None:
        before, self._left_out = self._left_out, (playbook.meta.left.ops, playbook.meta.left.entries)
        if self._left_out > before:
            ops, entries = self._left_out
            self._log.warning("entries_full", ops_left_out=ops, entries_left_out=entries)

    # ------------------------------------------------------------------------------------------- the gateway

    async def _tell_now_and_then(self) -> None:
        """Tell the gateway, once all that is in the journal by then is in the playbook: of a batch it is told once."""
        async for _ in self._cycle.each(self._every):
            await self._feed.reached(self._feed.end)
            due = copies(self._playbook.endpoints.values(), self._playbook.meta.successes, self._told)
            if not due:
                continue
            await self._learned.save_told(due)
            created = sum(copy.endpoint not in self._told for copy in due)
            self._told |= {copy.endpoint: copy.successes for copy in due}
            self._log.info("consolidated", created=created, updated=len(due) - created)

    # ---------------------------------------------------------------------------------------------- made anew

    async def _make_anew_when_outdated(self) -> None:
        while True:
            if self._playbook.outdated:
                await self._make_anew()
            await trio.sleep(LOOK_S)

    async def _make_anew(self) -> None:
        """Fold the whole journal once more, with what has been revoked known; then let it take the old one's place."""
        revocations = self._playbook.meta.revocations
        anew = Playbook(self._corroboration, revocations)
        self._log.info("playbook_outdated", revocations=len(revocations), last_seq=self._playbook.cursor)
        for first in (await self._read(0)).ops[:1]:
            anew.inherit(self._playbook, first.seq)
        at = 0
        while at < self._playbook.cursor:
            at = await self._catch_up(anew, at)
        async with self._turn:
            while at < self._playbook.cursor:
                at = await self._catch_up(anew, at)
            before, old = len(self._playbook.entries), self._playbook
            if anew.passed_over or not _knows_more(old, anew) or any(map(old.may_hold, old.undone)):
                self._playbook, self._is_new = anew, True
            else:
                old.resume()  # nothing was meant by what was revoked, and the old one knows what was deleted since
            await self._stock()
        entries = len(self._playbook.entries)
        self._log.info(
            "playbook_made_anew",
            entries=entries,
            entries_before=before,
            ops_passed_over=anew.passed_over,
            last_seq=anew.cursor,
        )

    async def _forget_now_and_then(self) -> None:
        """Forget what only ops have shown that retention has deleted."""
        while True:
            await trio.sleep(FORGET_S)
            for first in (await self._read(0)).ops[:1]:
                async with self._turn:
                    if self._playbook.meta.first_seq < first.seq:
                        self._note(self._playbook.forget_before(first.seq))
                        self._show(trio.current_time() + TURN_S)

    async def _note_a_crash_anew(self) -> None:
        """Have an op set aside on which making the playbook anew has crashed so often, as one of the feed would be."""
        crashed, self._anew_in_hand = self._anew_in_hand, None
        if crashed is not None:
            anew, ops = crashed
            for op in ops:
                if op.seq == anew.cursor:
                    await self._feed.crashed_at(op)

    async def _catch_up(self, anew: Playbook, at: int) -> int:
        """Take the next ops in, and give how far it is now; what cannot be read is passed over."""
        end = self._playbook.cursor
        found = await self._read(at)
        ops = [op for op in found.ops if op.seq <= end and not self._feed.leaves_out(op)]
        taken = 0
        while taken < len(ops):
            self._anew_in_hand = anew, ops
            taken = _take_turn(anew, ops, taken, lambda _deltas: None, trio.current_time() + TURN_S)
            self._anew_in_hand = None
            await self._let_others()
        return min(found.through, end) if found.through > at else end


def _decided(entry: Entry, action: Action) -> Entry:
    """Give an entry after a decision, as far as that says whether it is handed out."""
    entry = msgspec.structs.replace(entry, mark=marked(entry.mark, action))
    if action is Action.RELEASE and entry.state in {State.WITHHELD, State.RETIRED}:
        return msgspec.structs.replace(entry, state=State.CANDIDATE, reason="", decided_by=Sides())
    return entry


def _knows_more(old: Playbook, anew: Playbook) -> bool:
    """Say whether one was made by the same rules, and of a journal whose beginning has been deleted since."""
    is_alike = (old.meta.corroboration, old.meta.version) == (anew.meta.corroboration, anew.meta.version)
    return is_alike and old.meta.first_seq < anew.meta.first_seq


def _take_turn(
    playbook: Playbook, ops: Sequence[Op], taken: int, note: Callable[[Sequence[Delta]], None], end: float
) -> int:
    """Take ops into a playbook until a time has come, one at least; give how many are taken then.

    :param note: is given what each has changed.
    """
    while taken < len(ops):
        note(playbook.take(ops[taken]))
        taken += 1
        if trio.current_time() >= end:
            break
    return taken
