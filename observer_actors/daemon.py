"""The daemon: everything put together, here and nowhere else. Read `_tree` first.

One file, though a long one: a part that is made elsewhere would have to be looked for.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final, TypeVar

import httpx
import trio

from observer_actors import __version__
from observer_actors.actors.admission import Admission, Submission
from observer_actors.actors.adviser import Adviser
from observer_actors.actors.analyzer import Analyzer
from observer_actors.actors.archivist import Archivist
from observer_actors.actors.commits import Commits
from observer_actors.actors.consolidator import Consolidator
from observer_actors.actors.consultant import Consultant
from observer_actors.actors.courier import Courier
from observer_actors.actors.cycle import Cycle
from observer_actors.actors.disk_process import DiskProcess
from observer_actors.actors.evidence import contrast_of
from observer_actors.actors.learned import Learned
from observer_actors.actors.librarian import Librarian
from observer_actors.actors.local_model import LocalModel
from observer_actors.actors.open_journal import OpenJournal
from observer_actors.actors.persister import Persister
from observer_actors.actors.quarantine import Quarantine
from observer_actors.actors.recorder import Recorder
from observer_actors.actors.ring_keeper import RingKeeper
from observer_actors.actors.stats import StatsKeeper
from observer_actors.actors.surroundings import Surroundings, trusted_certificates
from observer_actors.actors.tail import Tail
from observer_actors.addresses import without_password
from observer_actors.config import REREAD
from observer_actors.data_dir import take_directory
from observer_actors.errors import ConfigInvalid, GatewayRequired, said_by
from observer_actors.http.advice import answer_advice
from observer_actors.http.app import create_app
from observer_actors.http.guard import Guard
from observer_actors.http.intake import Intake
from observer_actors.http.listeners import address_of, serving_sockets
from observer_actors.http.server import IngestServer, files_max
from observer_actors.http.views import Readiness, Views
from observer_actors.in_force import InForce, api_key, check_files, readings
from observer_actors.journal import Disk, PosixDisk
from observer_actors.journal.format import Paths
from observer_actors.kb import OutcomesIndex
from observer_actors.logs import log_lifecycle, logger, logger_at_any_level, set_level
from observer_actors.mcp import Mount
from observer_actors.models import ChatModel, LakehouseModel, OllamaModel, OpenAIModel
from observer_actors.playbook import Corroboration
from observer_actors.settings import Settings
from observer_actors.store import Shelf
from observer_actors.supervision import (
    ChildSpec,
    Events,
    Exhausted,
    Life,
    Mailbox,
    RestartPolicy,
    Strategy,
    Supervisor,
)

T = TypeVar("T")

SUBMISSIONS_MAX: Final = 10_000
"""Submissions in the persister's mailbox; ops and bytes are bounded by admission."""
RELOAD_S: Final = 3.0
HARD_EXIT_S: Final = 5.0
"""Beyond the sum of the stop budgets: whatever still runs then cannot be cancelled, and the process ends."""
CLOSE_S: Final = 1.0
ROOT_POLICY: Final = RestartPolicy(intensity=2, window_s=600.0, backoff_first_s=1.0, backoff_max_s=10.0)
"""A branch whose own patience is exhausted is started anew twice in ten minutes; after that a new process is better."""


class Daemon:
    """One daemon: its parts, and its tree.

    :param listeners: bound sockets; they stay the caller's.
    :param around: threads, time, chance and network; by default the real ones.
    :param on_step: see `Life.at`; in tests it makes actors crash.
    """

    def __init__(
        self,
        settings: Settings,
        listeners: list[socket.socket],
        *,
        disk: Disk | None = None,
        around: Surroundings | None = None,
        on_step: Callable[[str, str], None] = lambda _name, _step: None,
    ) -> None:
        self._in_force = InForce.of(settings)
        self.addresses = [address_of(listener, tls=bool(settings.listen.tls_cert)) for listener in listeners]
        self.events = Events(log_lifecycle)
        self.life = Life("root", 1, on_progress=lambda: None, on_step=on_step)
        self._reading = defaultdict[str, trio.CapacityLimiter](lambda: trio.CapacityLimiter(1))
        """What a reload reads, one thread each: one that hangs keeps no other waiting."""
        self._reloads_failed = 0
        """Since the last one that did not, and had every file that its settings name be of use."""
        self._around = around or Surroundings()
        self._disk = disk or PosixDisk(is_ours=self._around.is_ours)
        self._build_pipeline()
        self._build_learning(disk)
        self._build_edge(listeners)
        self.root = self._tree()

    async def run(self, *, task_status: trio.TaskStatus[Daemon] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called, then drain.

        :raises GivenUp: the root's restarts are exhausted.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.cycle.run)
            nursery.start_soon(self.admission.keep_time)
            nursery.start_soon(self._say_ready, task_status)
            try:
                await self.root.run(self.life)
            finally:
                with trio.move_on_after(CLOSE_S, shield=True):
                    await self._model_client.aclose()
                    await self.learned.close()
                with trio.move_on_after(HARD_EXIT_S, shield=True):
                    await self.journal.close()
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Begin to drain; again is harmless."""
        self.life.stopping.set()

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._in_force.settings

    async def reload(self, load: Callable[[], Settings]) -> tuple[list[str], list[str]]:
        """Put new settings in force where that can be done; give the names of what changed, and of what waits.

        See `InForce.renewed`. A file that only a restart reads, and that cannot be used, is told of and waits too: it
        must not keep a revoked token valid. Such a reload counts as one that failed: a start would.

        :param load: reads them; in a thread, for a file may hang.
        :raises ConfigInvalid: they or the tokens cannot be used, or were not read within `RELOAD_S`: those in force
            stay.
        """

        def renew() -> tuple[Settings, tuple[InForce, list[str], list[str], ConfigInvalid | None]]:
            wanted = load()
            return wanted, self._in_force.renewed(wanted)

        try:
            wanted, (self._in_force, now, later, trouble) = await self._read("settings", renew)
        except ConfigInvalid:
            self._reloads_failed += 1
            raise
        self.tail.end()  # whose token is gone reads no more; any other reader comes back, and goes on where it was
        set_level(self.settings.log.level)
        self.cycle.reconsider()
        self.journal.sealed()  # the archivist looks at what retention allows now
        troubles = [("listen.tls_cert", trouble)] if trouble is not None else []
        for name, read in readings(wanted).items():
            if name in REREAD and name not in later:
                continue  # it has just been read
            try:
                await self._read(name, read)
            except ConfigInvalid as error:
                troubles.append((name, error))
                later.append(name)
        for name, found in troubles:
            hint = found.hint or "mend it: the next start reads it"
            logger("daemon").error("reload_incomplete", setting=name, error=str(found), hint=hint)
        self._reloads_failed = self._reloads_failed + 1 if troubles else 0
        return now, list(dict.fromkeys(later))

    async def _read(self, what: str, read: Callable[[], T]) -> T:
        """Read in a thread, which is left to itself after `RELOAD_S`: files may be pipes, and disks may hang."""
        with trio.move_on_after(RELOAD_S):
            return await self._around.in_thread(read, limiter=self._reading[what], abandon_on_cancel=True)
        raise ConfigInvalid(f"not read within {RELOAD_S:g} s", hint="a file is a pipe, or on a disk that hangs")

    def readiness(self) -> Readiness:
        """Say whether events are taken now, and if not, why."""
        return self.views.readiness()

    def rate_per_second(self) -> float:
        """Give the mean rate of commits over the last minute."""
        return self.stats.rate_per_second()

    @property
    def stop_seconds_max(self) -> float:
        """The sum of the stop budgets."""
        return self.root.as_child().stop_s

    async def _say_ready(self, task_status: trio.TaskStatus[Daemon]) -> None:
        await self.life.wait_ready()
        logger("daemon").info("ready", last_seq=self.commits.last_seq)
        task_status.started(self)

    def _build_pipeline(self) -> None:
        """Make what brings events to the disk, and what follows it at once; the archivist too."""
        settings, data_dir, around = self.settings, self.settings.data_dir, self._around
        crashes_max = settings.supervision.crashes_before_quarantine
        quarantine = Quarantine(data_dir, self.events, disk=self._disk, log=logger("quarantine"), around=around)
        self.journal = OpenJournal(
            self._disk, data_dir, lambda: self.settings.journal, log=logger("journal"), around=around
        )
        self.commits = Commits(self.journal.following, crashes_max=crashes_max, set_aside=quarantine.op)
        self.cycle = Cycle(lambda: self.settings.cycle.seconds)
        self.mailbox: Mailbox[Submission] = Mailbox(
            "persister",
            SUBMISSIONS_MAX,
            events=self.events,
            crashes_max=crashes_max,
            set_aside=quarantine.submission,
            split=Submission.split,
        )
        self.admission = Admission(self.mailbox, settings.admission)
        self.recorder = Recorder(self.admission, around.time_ns)
        self.persister = Persister(
            self.mailbox,
            self.commits,
            self.journal.open_writer,
            settings.journal,
            log=logger("persister"),
            on_seal=self.journal.sealed,
            probe=self.journal.probe,
            around=around,
        )
        self.feeds = {
            "ring_keeper": self.commits.feed("ring_keeper", linger_s=0.02),
            "stats": self.commits.feed("stats", linger_s=0.02),
            "analyzer": self.commits.feed("analyzer", linger_s=0.02),
            "consolidator": self.commits.feed("consolidator", linger_s=0.02),
            # An auditor on this machine appends its own row just after the answer: mostly it is there first.
            "librarian": self.commits.feed("librarian", linger_s=0.03),
        }
        self.ring = RingKeeper(self.feeds["ring_keeper"], self.commits, settings.ring.capacity_ops)
        self.stats = StatsKeeper(
            self.feeds["stats"],
            self.ring,
            self.cycle,
            path=Paths(data_dir).counters,
            disk=self._disk,
            in_thread=around.in_thread,
            log=logger("stats"),
        )
        self.archivist = Archivist(self.journal, around.in_thread)
        self.tail = Tail(self.commits, self.journal.read, settings.tail)

    def _build_learning(self, disk: Disk | None) -> None:
        """Make what learns from the journal, and what is asked about it."""
        settings, data_dir, around = self.settings, self.settings.data_dir, self._around
        self.learned = Learned(
            data_dir,
            settings.gateway,
            log=logger("store"),
            last_seq=lambda: self.commits.last_seq if self.commits.is_open else None,
            around=around,
        )
        self._model_client = httpx.AsyncClient(
            trust_env=False, verify=trusted_certificates(), transport=around.transport
        )
        model = LakehouseModel(self._model_client, settings.model) if settings.model.lakehouse_url else None
        self.local_model = (
            LocalModel(self._model_client, settings.diagnosis, log=logger("model"))
            if settings.diagnosis.backend == "llama.cpp"
            else None
        )
        self.analyzer = Analyzer(
            self.feeds["analyzer"],
            self.learned,
            self.cycle,
            model,
            log=logger("analyzer"),
            settings=settings.failures,
            clock=around.seconds,
            announce=self.tail.announce,
            consultant=self._consultant(),
        )
        self.shelf = Shelf()
        self.consolidator = Consolidator(
            self.feeds["consolidator"],
            self.learned,
            self.shelf,
            self.cycle,
            self.journal.following,
            every=settings.cycle.consolidate_every,
            log=logger("consolidator"),
            corroboration=Corroboration(settings.playbook.runs_min, settings.playbook.sources_min),
        )
        self.adviser = Adviser(
            self.shelf,
            self.recorder,
            self.consolidator.entry,
            self.consolidator.drawn,
            settings=lambda: self.settings.advice,
            around=around,
        )
        kept = disk or PosixDisk(shared=True, is_ours=around.is_ours)
        self.librarian = Librarian(
            self.feeds["librarian"],
            OutcomesIndex(data_dir, kept, secrets=lambda: self._in_force.decoder.secrets),
            path=data_dir / "_observer" / "librarian.json",
            disk=self._disk,
            in_thread=around.in_thread,
            log=logger("librarian"),
        )
        self.courier = Courier(
            self.learned,
            settings.gateway,
            log=logger("courier"),
            webhook_url=settings.failures.webhook_url,
            around=around,
        )

    def _build_edge(self, listeners: list[socket.socket]) -> None:
        """Make what talks to callers."""
        settings = self.settings
        self.intake = Intake(
            self.admission,
            lambda: self._in_force.decoder,
            settings.listen,
            wait_s=settings.admission.wait_seconds_max,
            ring_size=self.ring.size,
            log=logger("ingest"),
            around=self._around,
        )
        self.views = self._views()

        def guard() -> Guard:
            return self._in_force.guard

        self.ingest = IngestServer(
            self.intake,
            Mount(create_app(self.views), guard, seconds_max=settings.listen.request_seconds_max),
            listeners,
            guard,
            settings.listen,
            tls=lambda: self._in_force.tls,
            advise=partial(answer_advice, self.views),
            wait_s=settings.admission.wait_seconds_max,
            on_stopping=self.tail.close,
        )

    def _consultant(self) -> Consultant | None:
        """Give who asks the model about single patterns; None where no model is named."""
        settings = self.settings.diagnosis
        if not settings.backend:
            return None
        model: ChatModel
        if self.local_model is not None:
            model = self.local_model
        elif settings.backend == "ollama":
            model = OllamaModel(self._model_client, settings, api_key=api_key(settings.api_key_file))
        else:
            model = OpenAIModel(self._model_client, settings, api_key=api_key(settings.api_key_file))
        return Consultant(
            model,
            settings,
            self.learned,
            lambda pattern: contrast_of(self.journal.query, self.analyzer.pattern_of, pattern),
            log=logger("analyzer"),
            clock=self._around.seconds,
        )

    def _tree(self) -> Supervisor:
        """Give the tree of actors."""
        feed = {name: feed.statistics for name, feed in self.feeds.items()}
        pipeline = self._supervisor(
            "pipeline",
            Strategy.REST_FOR_ONE,
            ChildSpec(
                "persister", self.persister.run, drains=True, stop_s=10, start_s=60, depth=self.mailbox.statistics
            ),
            ChildSpec("ring_keeper", self.ring.run, start_s=60, depth=feed["ring_keeper"]),  # reads up to 1 GiB
            ChildSpec("stats", self.stats.run, depth=feed["stats"]),
        )
        upkeep = self._supervisor(
            "upkeep",
            Strategy.ONE_FOR_ONE,
            ChildSpec("archivist", self.archivist.run),
            exhausted=Exhausted.PARK,
        )
        learning = self._supervisor(
            "learning",
            Strategy.ONE_FOR_ONE,
            ChildSpec("analyzer", self.analyzer.run, stop_s=2, depth=feed["analyzer"]),
            ChildSpec("consolidator", self.consolidator.run, stop_s=2, depth=feed["consolidator"]),
            ChildSpec("librarian", self.librarian.run, stop_s=2, depth=feed["librarian"]),
            ChildSpec("courier", self.courier.run),
            *([ChildSpec("model", self.local_model.run, stop_s=2)] if self.local_model is not None else []),
            exhausted=Exhausted.PARK,
        )
        edge = self._supervisor(
            "edge",
            Strategy.ONE_FOR_ONE,
            ChildSpec("ingest", self.ingest.run, drains=True, stop_s=8),
        )
        branches = [branch.as_child() for branch in (pipeline, upkeep, learning, edge)]
        return Supervisor("root", branches, events=self.events, policy=ROOT_POLICY, jitter=self._around.chance)

    def _supervisor(
        self, name: str, strategy: Strategy, *children: ChildSpec, exhausted: Exhausted = Exhausted.ESCALATE
    ) -> Supervisor:
        supervision = self.settings.supervision
        policy = RestartPolicy(
            supervision.intensity,
            supervision.window_seconds,
            supervision.backoff_seconds_first,
            supervision.backoff_seconds_max,
        )
        return Supervisor(
            name,
            children,
            events=self.events,
            strategy=strategy,
            policy=policy,
            exhausted=exhausted,
            park_s=supervision.park_seconds,
            jitter=self._around.chance,
        )

    def _views(self) -> Views:
        return Views(
            intake=self.intake,
            admission=self.admission,
            recorder=self.recorder,
            adviser=self.adviser,
            persister=self.persister,
            commits=self.commits,
            ring=self.ring,
            stats=self.stats,
            tail=self.tail,
            events=self.events,
            feeds=self.feeds,
            tree=lambda: self.root.statistics(),  # noqa: PLW0108 - the root is made after the views
            query=self.journal.query,
            get=self.journal.get,
            damaged_lines=self.journal.damaged_lines,
            reloads_failed=lambda: self._reloads_failed,
            analyzer=self.analyzer,
            consolidator=self.consolidator,
            librarian=self.librarian,
            outbox=self.learned.statistics,
            lanes=self.courier.lanes,
            now_us=lambda: self._around.time_ns() // 1_000,
        )


@contextmanager
def open_daemon(settings: Settings) -> Iterator[Daemon]:
    """Take the data directory and the address, and make a daemon that is ready to run.

    :raises ConfigInvalid: the directory, or a file that the settings name, cannot be used; or too few may be open.
    :raises DataDirectoryLocked: another daemon has it.
    :raises FormatUnknown: a newer version wrote it, or observer.ts.
    :raises AddressUnavailable: cannot listen.
    """
    with ExitStack() as stack:
        lock = take_directory(stack, settings)
        check_files(settings)  # here, where it ends the process, and not in an actor, which would be restarted
        files_max()  # likewise
        sockets = serving_sockets(settings.listen, needs_token=bool(settings.auth.tokens_file))
        around = Surroundings(
            disk_process=partial(DiskProcess.started, lock.descriptors), is_ours=lock.is_in_place, holding=lock.held
        )
        daemon = Daemon(settings, stack.enter_context(sockets), around=around)
        log = logger("daemon") if settings.listen.port else logger_at_any_level("daemon")
        log.info(
            "listening",
            url=daemon.addresses[0],
            addresses=daemon.addresses,
            version=__version__,
            data_dir=str(settings.data_dir.absolute()),
        )
        yield daemon


async def start_observer(
    settings: Settings | None = None, *, task_status: trio.TaskStatus[Daemon] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a daemon inside another trio program: ``daemon = await nursery.start(start_observer)``.

    The seed's `startObserver`. Leaves signals and logging to that program. Cancelling it ends the daemon at once;
    ``daemon.stop()`` drains. Raises what `open_daemon` and `Daemon.run` do.
    """
    settings = settings or Settings()
    await require_gateway(settings)
    with open_daemon(settings) as daemon:
        await daemon.run(task_status=task_status)


async def require_gateway(settings: Settings) -> None:
    """Do as the seed did where that is asked for: no gateway, no observer.

    :raises GatewayRequired: it does not answer as it should within `gateway.timeout_seconds`.
    """
    gateway = settings.gateway
    if not gateway.required:
        return
    where = without_password(gateway.url)
    logger("daemon").info("gateway_awaited", url=where, seconds_max=gateway.timeout_seconds)
    try:
        with trio.fail_after(gateway.timeout_seconds):  # httpx's own limit is for each piece of an answer
            async with httpx.AsyncClient(
                timeout=gateway.timeout_seconds, trust_env=False, verify=trusted_certificates()
            ) as client:
                (await client.get(gateway.url.rstrip("/") + "/health")).json()
    except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError, ValueError, RecursionError) as error:
        problem = said_by(error) or f"nothing within {gateway.timeout_seconds:g} s"
        raise GatewayRequired(
            f"the gateway at {where} does not answer GET /health: {type(error).__name__}: {problem}",
            hint="start it, or leave gateway.required out",
        ) from error
