"""The tables, as the steps that lead to them: one that was released never changes, a new one follows it.

No step leaves all tables as they were: by them a newer version is told from a number that has rotted.

Records are JSON, readable with the ``sqlite3`` shell; a column beside them is what is searched for.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    # The statements that lead from version n to n + 1. A step that has been released is never changed.
    (
        """CREATE TABLE cursors (
            consumer TEXT PRIMARY KEY,
            seq INTEGER NOT NULL CHECK (seq >= 0)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE snapshots (
            name TEXT PRIMARY KEY,
            seq INTEGER NOT NULL CHECK (seq >= 0),
            body TEXT NOT NULL CHECK (json_valid(body))
        ) STRICT""",
        """CREATE TABLE patterns (
            id TEXT PRIMARY KEY,
            endpoint TEXT NOT NULL,
            last_seq INTEGER NOT NULL,
            record TEXT NOT NULL CHECK (json_valid(record))
        ) STRICT""",
        """CREATE TABLE diagnoses (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            evidence TEXT NOT NULL UNIQUE,
            record TEXT NOT NULL CHECK (json_valid(record))
        ) STRICT""",
        """CREATE TABLE entries (
            id TEXT PRIMARY KEY,
            endpoint TEXT NOT NULL,
            last_seq INTEGER NOT NULL,
            record TEXT NOT NULL CHECK (json_valid(record))
        ) STRICT""",
        """CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            key TEXT NOT NULL UNIQUE,
            path TEXT NOT NULL,
            body BLOB NOT NULL,
            state TEXT NOT NULL DEFAULT 'pending'
                CHECK (state IN ('pending', 'delivered', 'refused', 'dropped')),
            attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
            tried_at REAL NOT NULL DEFAULT 0,
            next_at REAL NOT NULL DEFAULT 0,
            error TEXT NOT NULL DEFAULT ''
        ) STRICT""",
        "CREATE INDEX outbox_by_state ON outbox (state, id)",
        # Totals, since rows are forgotten.
        "CREATE TABLE counters (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        # The playbook as the fold over the journal that it is now. What the gateway has been told stays true.
        """CREATE TABLE playbook (
            section TEXT NOT NULL,
            key TEXT NOT NULL,
            seq INTEGER NOT NULL,
            record TEXT NOT NULL CHECK (json_valid(record)),
            PRIMARY KEY (section, key)
        ) STRICT, WITHOUT ROWID""",
        "CREATE TABLE told (endpoint TEXT PRIMARY KEY, successes INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        """INSERT INTO told SELECT endpoint, max(json_extract(record, '$.sent_successes')) FROM entries
            WHERE json_extract(record, '$.sent_successes') > 0 GROUP BY endpoint""",
        "DROP TABLE entries",
        "DELETE FROM cursors WHERE consumer = 'consolidator'",
    ),
)
