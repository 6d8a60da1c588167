"""What must be true of a run, whatever has happened in it.

While it runs: every queue stays within its bound (`Bounds`), and every caller is answered in time (`callers`).
When all is well again: within `CALM_S` every actor serves, every op that callers still owe is stored, every consumer
and the outbox are where a run without faults would be (`check_settled`). Then the daemon drains within its budget, and
the journal on its disk is held against everything that any caller was ever told (`check_after`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from observer_actors.actors.commits import Feed
from observer_actors.daemon import Daemon
from observer_actors.journal import Disk, JournalReader, look, verify
from observer_actors.op import Op
from observer_actors.patterns import Pattern, apply
from observer_actors.playbook import Corroboration, Playbook
from observer_actors.stats import Stats
from observer_actors.store import Lane
from tests.daemon.inside import leaves
from tests.daemon.load import Ledger
from tests.simulation.callers import BATCH_MAX
from tests.simulation.network import Network

TELLING_OPS: Final = 30
"""Of so many ops some are worth a message to the gateway."""


class Bounds:
    """Looks at the queues, again and again, and remembers the first that was beyond its bound."""

    def __init__(self) -> None:
        self.broken = ""
        self.most: dict[str, int] = {}
        """Queue -> the most that has waited in it."""

    def look(self, daemon: Daemon) -> None:
        """Look now."""
        mailbox, admission, outbox = (
            daemon.mailbox.statistics(),
            daemon.admission.statistics(),
            daemon.learned.statistics(),
        )
        # What comes back after a crash lies beside the channel, op by op where each had a caller of its own, and was
        # counted by admission all along; a group of as many as a batch has fits into an empty room, too.
        beside = max(daemon.settings.journal.batch_ops_max, admission.waiting_ops_max, BATCH_MAX)
        self._within("mailbox", mailbox.depth, mailbox.bound + beside)
        if admission.waiting_ops > BATCH_MAX:  # one batch always fits into an empty room
            self._within("waiting ops", admission.waiting_ops, admission.waiting_ops_max)
        if admission.waiting_bytes > 3_000:
            self._within("waiting bytes", admission.waiting_bytes, admission.waiting_bytes_max)
        for name, feed in daemon.feeds.items():
            self._within(f"commits for {name}", feed.statistics().depth, feed.statistics().bound)
        self._within("ring", len(daemon.ring.ring), daemon.settings.ring.capacity_ops)
        if outbox is not None:
            for lane, counts in outbox.items():
                self._within(f"messages for the {lane}", counts.pending, daemon.settings.gateway.outbox_max)

    def _within(self, name: str, depth: int, bound: int) -> None:
        self.most[name] = max(depth, self.most.get(name, 0))
        if depth > bound and not self.broken:
            self.broken = f"{name}: {depth} wait, {bound} may"


def all_serve(daemon: Daemon) -> bool:
    """Say whether every actor runs."""
    return all(actor.state == "running" for actor in leaves(daemon).values())


def has_caught_up(daemon: Daemon) -> bool:
    """Say whether every consumer has taken in all that is committed, and nothing waits for the gateway."""
    outbox = daemon.learned.statistics()
    if outbox is None or any(lane.pending for lane in outbox.values()):
        return False
    return _reached(daemon.feeds, daemon.commits.last_seq)


def _reached(feeds: Mapping[str, Feed], seq: int) -> bool:
    return all(feed.cursor >= seq for feed in feeds.values())


def check_settled(daemon: Daemon, ops: Sequence[Op], left_out: set[str], network: Network) -> None:
    """Compare the consumers with what a run without faults makes of the same ops.

    :param left_out: consumers that have left out an op that made them crash: they lack it, as was promised.
    """
    if not left_out & {"ring_keeper"}:
        assert list(daemon.ring.ring) == list(ops[-daemon.settings.ring.capacity_ops :]), "the ring is another"
    if "consolidator" not in left_out:
        playbook = Playbook(Corroboration())
        for op in ops:
            playbook.take(op)
        assert daemon.consolidator.playbook.rows() == playbook.rows(), "the playbook is another, to the byte"
    if "stats" not in left_out:
        stats = Stats()
        stats.add(ops)
        assert msgspec.to_builtins(daemon.stats.stats) == msgspec.to_builtins(stats), "the counters are others"
    if "analyzer" not in left_out:
        assert _undiagnosed(daemon.analyzer.patterns) == _undiagnosed(apply({}, ops).patterns), (
            "the patterns are others"
        )
    outbox = daemon.learned.statistics()
    assert outbox is not None
    if len(ops) >= TELLING_OPS and "consolidator" not in left_out:
        assert network.received, "the gateway has received nothing"
    _check_gateway(network, outbox[Lane.GATEWAY].delivered)


def _undiagnosed(patterns: Mapping[str, Pattern]) -> dict[str, Pattern]:
    return {
        key: msgspec.structs.replace(pattern, diagnosed_seq=0, diagnosed_count=0) for key, pattern in patterns.items()
    }


def _check_gateway(network: Network, delivered: int) -> None:
    """The same key is always the same message: who remembers keys has each message once. And it has them.

    :param delivered: how many messages the outbox believes to have arrived.
    """
    bodies: dict[str, bytes] = {}
    for key, body in network.received:
        assert bodies.setdefault(key, body) == body, f"{key} came with two bodies"
    assert len(bodies) >= delivered, f"{delivered} messages were delivered, and the gateway has {len(bodies)}"


def check_after(data_dir: Path, disk: Disk, ledger: Ledger) -> list[Op]:
    """Look at what a drained daemon has left; give the ops."""
    ops = JournalReader(disk, data_dir, look(disk, data_dir)).read(0, 10**9)
    ledger.check(ops)
    times = [op.recorded_at for op in ops]
    assert times == sorted(times), "recorded_at goes back"
    report = verify(data_dir, disk=disk, in_use=False)
    damage = [finding for finding in report.findings if finding.severity == "damage"]
    assert damage == [], f"verify finds damage: {damage}"
    assert (report.ops, report.last_seq) == (len(ops), len(ops))
    return ops
