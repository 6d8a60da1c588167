"""`observer-actors export`."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec

from observer_actors.commands._answers import HealthAnswer, OpsAnswer
from observer_actors.commands._api import Api
from observer_actors.commands._aside import told
from observer_actors.commands._filters import Filters, pages, raw_ops
from observer_actors.commands._options import ApiOptions
from observer_actors.commands._output import written
from observer_actors.commands._screen import LongWork
from observer_actors.errors import ObserverError
from observer_actors.op import Op
from observer_actors.visible import visible, visible_json

COLUMNS: Final = Op.__struct_fields__
"""Of CSV: the fields of an op in the journal's order; `attrs` is JSON in one cell."""
FORMULA_BEGINS: Final = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to a spreadsheet, unless a quote stands before it (OWASP, CSV Injection)."""

_REMOVED_SEQ: Final = re.compile(rb"^observer_journal_removed_seq (\S+)$", re.MULTILINE)
_DERIVED: Final = re.compile(rb',"suspect":"(?:[^"\\]|\\.)*"\}\Z')
"""What `/ops` says of an op behind all that the op has."""


class OpsMissing(ObserverError):
    """Ops that should be there cannot be read; all others are written."""


class JournalEndsBefore(ObserverError):
    """What was exported the last time is not in this journal."""


def export(
    filters: Filters = Filters(),
    api: ApiOptions = ApiOptions(),
    *,
    format: Literal["jsonl", "csv"] = "jsonl",  # noqa: A002 - the flag's name
    output: Path | None = None,
) -> None:
    """Write operations out, oldest first: all of them, or those that fit the filters.

    JSONL is byte for byte what the journal holds, and can be imported again. CSV is for spreadsheets: what cannot be
    printed is escaped, and texts that would be formulas begin with a quote.

    Exits 1 when ops are missing that the journal should have, and says how many; the others are written. With filters,
    but those by seq, nobody can tell.

    Example: observer-actors export --since 7d --format csv --output week.csv

    Parameters
    ----------
    format
        One JSON object a line, or CSV with a head line.
    output
        A file to write instead of standard output; it is replaced once all is on disk, and stays as it was if not.
    """
    with nullcontext(sys.stdout.buffer) if output is None else written(output) as stream:
        done = _write(stream, filters, api, as_csv=format == "csv")
    if output is not None:
        told(f"{done.count:,} ops in {output}")
    if done.deleted:
        told(f"{done.deleted:,} ops behind seq {filters.after_seq:,} are not in there: retention has deleted them")
    if done.missing:
        raise OpsMissing(
            f"{done.missing:,} ops of the journal cannot be read, and are not in there",
            hint="`observer-actors verify` says where it is damaged",
        )


@dataclass(frozen=True, slots=True)
class _Written:
    """How many ops were written, and how many were not."""

    count: int
    missing: int
    deleted: int
    """Behind `--after-seq`: retention was faster than who exports."""


def _write(stream: IO[bytes], filters: Filters, api: ApiOptions, *, as_csv: bool) -> _Written:
    count = 0
    behind, gaps = filters.after_seq or 0, []
    wanted = asdict(filters) | {"order": "oldest"}
    with api.open() as daemon, LongWork("exporting", "ops") as progress:
        last_seq = daemon.read(HealthAnswer, "/health").last_seq
        if (filters.after_seq or 0) > last_seq:
            raise JournalEndsBefore(
                f"--after-seq {filters.after_seq}: the journal ends at {last_seq}",
                hint="was an older copy of it restored? Its newer ops have seqs from before: begin anew with all",
            )
        if as_csv:
            stream.write(_table([COLUMNS]))
        for body, page in pages(daemon, wanted, limit=None):
            stream.write(_rows(page.ops) if as_csv else _lines(body))
            count += len(page.ops)
            for op in page.ops:
                if op.seq > behind + 1 and not filters.by_content:  # with those nearly every op would have a gap
                    gaps.append(range(behind + 1, op.seq))
                behind = op.seq
            progress(behind, last_seq)
        end = last_seq + 1 if filters.before_seq is None else min(last_seq + 1, filters.before_seq)
        gaps = [] if filters.by_content else [gap for gap in (*gaps, range(behind + 1, end)) if gap]
        kept = _kept_from(daemon, end) if gaps or filters.after_seq is not None else 0
    missing = sum(len(range(max(gap.start, kept), gap.stop)) for gap in gaps)
    deleted = 0 if filters.after_seq is None else len(range(filters.after_seq + 1, min(kept, end)))
    return _Written(count, missing, deleted)


def _kept_from(daemon: Api, end: int) -> int:
    """Give the seq from which on the daemon should have each op: retention has deleted those before, perhaps meanwhile.

    Of a daemon that does not say it, the oldest op's, or ``end``.
    """
    removed = _REMOVED_SEQ.search(daemon.get("/metrics"))
    if removed is not None:
        return int(float(removed[1])) + 1
    ops = daemon.read(OpsAnswer, "/ops", {"order": "oldest", "limit": 1}).ops
    return ops[0].seq if ops else end


def _lines(body: bytes) -> bytes:
    return b"".join(_DERIVED.sub(b"}", bytes(op)) + b"\n" for op in raw_ops(body))


def _rows(ops: Iterable[Op]) -> bytes:
    return _table([_cell(getattr(op, name)) for name in COLUMNS] for op in ops)


def _table(rows: Iterable[Iterable[str | float]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str | float:  # noqa: ANN401 - a field of an op
    if value is None or value is msgspec.UNSET:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    text = visible(value) if isinstance(value, str) else visible_json(msgspec.json.encode(value)).decode()
    return "'" + text if text.startswith(FORMULA_BEGINS) else text
