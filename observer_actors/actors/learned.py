"""The store of learned things as the actors share it: one thread at a time, opened when first needed.

A file that turns out to be damaged is let go of; the actor that found it so crashes, and the next call opens the store
anew, which puts an empty one in its place. What an actor loaded before that is not in the new file, so it may not save
its changes there: `StoreReplaced` makes it crash too, and its next incarnation goes on from the new file's cursor.
The same happens to a file that somebody removes or renames, unless it is the whole directory that is away: it may come
back, and what has its name meanwhile is not ours to open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.surroundings import Surroundings
from observer_actors.doubt import Doubts
from observer_actors.errors import DiskFull, ObserverError
from observer_actors.journal.files import taken_away
from observer_actors.models import Call
from observer_actors.patterns import Diagnosis, Outgoing, Pattern, Standing
from observer_actors.playbook import Copy, Playbook, Row
from observer_actors.settings import GatewaySettings
from observer_actors.store import (
    ANALYZER,
    CONSOLIDATOR,
    LEARNED_PATH,
    Lane,
    LaneStatistics,
    Queued,
    Saved,
    Store,
    StoreBusy,
    StoreDamaged,
    StoreFailed,
)
from observer_actors.store.files import BUSY_SECONDS, translated

T = TypeVar("T")
DOUBTS: Final = "doubts"
STANDINGS: Final = "standings"
MODEL_CALLS: Final = "model_calls"
_doubts: Final = msgspec.json.Decoder(Doubts)  # here, as in `journal.format`
_standings: Final = msgspec.json.Decoder(dict[str, Standing])
_calls: Final = msgspec.json.Decoder(list[Call])
_WAITS: Final = (
    "make room, or end what writes to it, as an sqlite3 shell within BEGIN: what was learned waits till then"
)
_ANEW: Final = "all is learned anew from the journal, but what persons have decided: decide that again"


class StoreReplaced(StoreFailed):
    """The file that the actor had loaded from was damaged, or taken away, and another has taken its place."""

    status = 503
    title = "store replaced"
    retryable = True


class Learned:
    """What the learning actors keep.

    :param gateway: without a URL nothing is queued for it.
    :param last_seq: gives the end of the journal, None while it is not known; what was learned beyond it is set aside.
    """

    def __init__(
        self,
        data_dir: Path,
        gateway: GatewaySettings,
        *,
        log: FilteringBoundLogger,
        last_seq: Callable[[], int | None] = lambda: None,
        around: Surroundings | None = None,
    ) -> None:
        self._path = data_dir / LEARNED_PATH
        self._gateway = gateway
        self._log = log
        self._last_seq = last_seq
        self._around = around or Surroundings()
        self._limiter = trio.CapacityLimiter(1)
        self._store: Store | None = None
        self._statistics: Mapping[Lane, LaneStatistics] | None = None
        self._is_compared = False
        """The store was opened when the end of the journal was known."""
        self.refusal: ObserverError | None = None
        """Why nothing can be saved at present, though trying again may help; the log says so."""
        self._replaced = 0
        self._loaded: dict[str, int] = {}
        """Consumer -> how often the file had been replaced when the consumer loaded from it."""
        self._more = trio.Event()
        """Set, and replaced, when there may be another message to look at."""

    @property
    def has_gateway(self) -> bool:
        """Whether there is anybody to be told what works."""
        return bool(self._gateway.url)

    def statistics(self) -> Mapping[Lane, LaneStatistics] | None:
        """Give the numbers of the outbox, for each lane, as of the last change; None before the store was opened."""
        return self._statistics

    async def outbox(self) -> Mapping[Lane, LaneStatistics]:
        """Give the numbers of the outbox as they are now."""
        return await self._call(lambda store: store.statistics())

    async def close(self) -> None:
        """Close the file; nothing durable depends on it."""
        store, self._store = self._store, None
        if store is not None:
            await self._around.in_thread(store.close, limiter=self._limiter, abandon_on_cancel=True)

    async def load_patterns(self) -> tuple[dict[str, Pattern], int]:
        """Give all patterns, and the last seq that is in them."""
        return await self._call(lambda store: (store.patterns(), store.cursor(ANALYZER)), loads=ANALYZER)

    async def load_doubts(self) -> Doubts:
        """Give what was counted up to the same seq."""
        return await self._call(lambda store: store.state(DOUBTS, _doubts)) or Doubts()

    async def save_patterns(
        self,
        changes: Mapping[str, Pattern | None],
        seq: int,
        doubts: Doubts | None = None,
        said: Mapping[Diagnosis, Sequence[Outgoing]] = MappingProxyType({}),
    ) -> None:
        """Save patterns, None for one that is no more, and doubts together with the last seq that is in them.

        :param said: what a model said of some, and what is queued of it; see `Store.save_patterns`.
        :raises StoreReplaced: the file is another than the one loaded from; `save_standings`, `save_playbook` and
            `save_told` raise it too.
        """
        snapshots = {} if doubts is None else {DOUBTS: msgspec.json.encode(doubts)}
        self._note(
            await self._save(lambda store: store.save_patterns(changes, seq, snapshots=snapshots, said=said), ANALYZER)
        )

    async def load_diagnoses(self, owners: Mapping[str, Pattern]) -> dict[str, Diagnosis]:
        """Give what a model said last of each pattern; see `Store.diagnoses`."""
        return await self._call(lambda store: store.diagnoses(owners))

    async def load_standings(self) -> dict[str, Standing]:
        """Give how the patterns stood when that was last saved."""
        return await self._call(lambda store: store.state(STANDINGS, _standings)) or {}

    async def save_standings(self, standings: Mapping[str, Standing], messages: Sequence[Outgoing]) -> None:
        """Save how the patterns stand, and queue what the webhook is told, both or neither."""
        body = msgspec.json.encode(standings)
        self._note(await self._save(lambda store: store.save_state(STANDINGS, body, messages), ANALYZER))

    async def load_model_calls(self) -> list[Call]:
        """Give the calls to a model that still count, oldest first."""
        return await self._call(lambda store: store.state(MODEL_CALLS, _calls)) or []

    async def save_model_calls(self, calls: Sequence[Call]) -> None:
        """Save the calls to a model that still count: what was spent stays spent after a restart."""
        body = msgspec.json.encode(calls)
        await self._save(lambda store: store.save_state(MODEL_CALLS, body))

    async def load_playbook(self) -> Playbook:
        """Give the playbook as it was last saved."""
        return await self._call(Store.playbook, loads=CONSOLIDATOR)

    async def save_playbook(self, rows: Sequence[Row], seq: int, *, whole: bool = False) -> None:
        """Save what has changed of the playbook, with the last seq that is in it.

        :param whole: the rows are all there is.
        """
        await self._save(lambda store: store.save_playbook(rows, seq, whole=whole), CONSOLIDATOR)

    async def load_told(self) -> dict[str, int]:
        """Give what the gateway has been told: endpoint -> successes."""
        return await self._call(Store.told)

    async def save_told(self, copies: Sequence[Copy]) -> None:
        """Save what the gateway is told, and queue it, all or nothing."""
        self._note(await self._save(lambda store: store.save_told(copies), CONSOLIDATOR))

    async def next_message(self, lane: Lane) -> Queued:
        """Wait until the head of a lane of the outbox is due."""
        while True:
            more = self._more  # before the look: what is queued during it is not missed
            head = await self._call(lambda store: store.head(lane))
            if head is None:
                await more.wait()
                continue
            wait_s = head.wait_seconds(self._clock())
            if not wait_s:
                return head
            await trio.sleep(wait_s)

    async def delivered(self, message: Queued) -> None:
        """Let go of a message."""
        await self._save(lambda store: store.delivered(message.key))

    async def refused(self, message: Queued, error: str) -> None:
        """Set a message aside that the receiver will never take."""
        await self._save(lambda store: store.refused(message.key, error))

    async def failed(self, message: Queued, error: str, delay_s: float) -> None:
        """Try a message again later."""
        now = self._clock()
        await self._save(lambda store: store.failed(message.key, error, now=now, next_at=now + delay_s))

    def _clock(self) -> float:
        return self._around.seconds()

    def _note(self, saved: Saved) -> None:
        for lane, dropped in saved.dropped.items():
            hint = "who is to get them is away; the oldest were dropped"
            self._log.error("outbox_full", receiver=lane.value, dropped=dropped, hint=hint)
        if saved.queued:
            self._wake()

    def _wake(self) -> None:
        """Have those look who wait for a message."""
        self._more.set()
        self._more = trio.Event()

    async def _save(self, call: Callable[[Store], T], saves: str = "") -> T:
        """Run a call that saves; tried again while another process holds the file, or the disk is full.

        A crash would mend nothing of that, and cost what is under way, such as questions to a model.
        """
        while True:
            try:
                done = await self._call(call, saves=saves)
            except (StoreBusy, DiskFull) as error:
                if self.refusal is None:
                    self._log.warning("store_refused", error=str(error), hint=_WAITS)
                self.refusal = error
                await trio.sleep(BUSY_SECONDS)
            else:
                self.refusal = None
                return done

    async def _call(self, call: Callable[[Store], T], *, loads: str = "", saves: str = "") -> T:
        """Run a call in the thread. When its caller is cancelled it goes on there, and the next call waits for its end.

        What is saved may so be saved again, which changes nothing.
        """
        work = partial(self._in_thread, call, loads, saves)
        replaced = self._replaced
        try:
            return await self._around.in_thread(work, limiter=self._limiter, abandon_on_cancel=True)
        except trio.Cancelled:
            self._wake()  # it may queue a message that nobody hears of; who looks now looks after it
            raise
        finally:
            if self._replaced != replaced:
                self._wake()  # the new file may have taken over messages that nobody was told of

    def _in_thread(self, call: Callable[[Store], T], loads: str, saves: str) -> T:
        end = self._last_seq()
        with translated():
            is_gone = self._store is not None and not self._store.is_in_place()
            if (is_gone or self._store is None) and not self._around.is_ours():
                raise taken_away()
        if is_gone:
            self._replaced += 1
            self._log.error("store_taken_away", path=str(self._path), hint=_ANEW)
        if self._store is not None and (is_gone or (not self._is_compared and end is not None)):
            store, self._store = self._store, None
            store.close()
        if self._store is None:
            self._store = self._open(end)
            self._is_compared = end is not None
        if saves and self._loaded.get(saves) != self._replaced:
            raise StoreReplaced(f"{self._path.name} was replaced; {saves} loads anew", hint="try again in some seconds")
        try:
            result = call(self._store)
            self._statistics = self._store.statistics()
        except StoreDamaged:
            store, self._store = self._store, None
            store.close()
            raise
        if loads:
            self._loaded[loads] = self._replaced
        return result

    def _open(self, end: int | None) -> Store:
        store = Store.open(self._path, outbox_max=self._gateway.outbox_max, seq_max=end)
        if store.set_aside is not None:
            self._replaced += 1
            self._log.error(
                "store_damaged",
                set_aside=str(store.set_aside),
                hint=_ANEW,
            )
        return store
