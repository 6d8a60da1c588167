"""The daemon's own ops."""

from __future__ import annotations

from pathlib import Path

from msgspec import UNSET

from observer_actors.event import OWN_SOURCE, EventDecoder
from observer_actors.settings import ListenSettings, Settings
from tests.daemon.inside import daemon_inside
from tests.daemon.load import stored_ops

NOW = "2026-11-22T10:00:00.000Z"


async def test_an_op_of_the_daemons_own_is_on_disk_when_it_has_a_seq(tmp_path: Path) -> None:
    async with daemon_inside(Settings(data_dir=tmp_path, listen=ListenSettings(port=0))) as daemon:
        seq = await daemon.recorder.record("observer:advice", {"advice_id": "a1", "exposed": "e1 e2"})
        [op] = stored_ops(tmp_path)
    assert (op.seq, op.source, op.endpoint, op.success, op.id) == (seq, OWN_SOURCE, "observer:advice", True, UNSET)
    assert op.attrs == {"advice_id": "a1", "exposed": "e1 e2"}


def test_no_caller_is_taken_for_the_daemon() -> None:
    decoder = EventDecoder({OWN_SOURCE, "cron"})
    for body in (
        b'{"endpoint": "observer:advice", "input_summary": "", "success": true, "source": "observer"}',
        b'{"source": "observer", "attrs": {"exposed": "e1"}}',
    ):
        assert decoder.one(body, now=NOW).op.source == "scenario"
        assert [op.source for op in decoder.many(body, now=NOW, lines_max=1).ops] == ["scenario"]
