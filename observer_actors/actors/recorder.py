"""The daemon's own ops: what it has handed out, and what a person has decided, on the one way into the journal.

They are of source `observer`, which no caller may use: an event that says so is kept as `scenario`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from observer_actors.actors.admission import Admission
from observer_actors.actors.surroundings import now_text
from observer_actors.event import OWN_SOURCE
from observer_actors.op import Op, Scalar, encode_op


class Recorder:
    """Writes ops of source `observer`.

    :param time_ns: nanoseconds since 1970.
    """

    def __init__(self, admission: Admission, time_ns: Callable[[], int]) -> None:
        self._admission = admission
        self._time_ns = time_ns

    async def record(self, endpoint: str, attrs: Mapping[str, Scalar], *, summary: str = "") -> int:
        """Write one op, and give its seq once it is on disk.

        :raises Overloaded: no room, or no answer, in time.
        :raises DiskFailed: the disk refused.
        """
        op = Op(
            timestamp=now_text(self._time_ns),
            endpoint=endpoint,
            input_summary=summary,
            success=True,
            duration_ms=0,
            output_summary="ok",
            source=OWN_SOURCE,
            attrs=dict(attrs),
        )
        receipts = await self._admission.submit((op,), len(encode_op(op)))
        return receipts.seqs[0]
