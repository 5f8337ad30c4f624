-- What is owed to the cloud. A row is written in the transaction of the fact itself and is then open, delivered or parked:
-- open = both times are NULL. There is no state in between, so a killed process leaves nothing to be stuck in.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id   TEXT NOT NULL UNIQUE,       -- the same fact always has the same id, so the cloud can recognise a repeat
    subject      TEXT NOT NULL,              -- entries of one subject leave in order
    sequence     INTEGER NOT NULL,           -- 1, 2, 3 ... within the subject
    message_type TEXT NOT NULL,              -- e.g. study.image_received
    priority     INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 9),   -- 1 leaves first
    parameters   TEXT NOT NULL,              -- JSON object
    created_at   TEXT NOT NULL,              -- this and the next: UTC, 2026-11-22T01:02:03.456Z
    due_at       TEXT NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    reason       TEXT NOT NULL DEFAULT '',   -- why the last attempt failed, or why it is parked
    delivered_at TEXT,
    parked_at    TEXT,
    UNIQUE (subject, sequence),
    CHECK (delivered_at IS NULL OR parked_at IS NULL)
) STRICT;

CREATE INDEX outbox_open_by_priority ON outbox (priority, id) WHERE delivered_at IS NULL AND parked_at IS NULL;
CREATE INDEX outbox_open_by_subject ON outbox (subject, id) WHERE delivered_at IS NULL AND parked_at IS NULL;
CREATE INDEX outbox_parked ON outbox (parked_at) WHERE parked_at IS NOT NULL;
