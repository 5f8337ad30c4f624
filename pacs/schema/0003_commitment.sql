-- What machines asked to be promised (storage commitment, PS3.4 Annex J), and whether they have heard the answer.

CREATE TABLE commitment (
    id              INTEGER PRIMARY KEY,
    transaction_uid TEXT NOT NULL UNIQUE,
    requester       TEXT NOT NULL,              -- AE title that asked, and that is told
    addressed       TEXT NOT NULL,              -- AE title of ours that it called; the report comes from it
    requested_at    TEXT NOT NULL,              -- this and all times: UTC
    verified_at     TEXT,                       -- NULL: the files have not been looked at yet
    acknowledged_at TEXT,                       -- NULL: the requester has not confirmed the report yet
    attempts        INTEGER NOT NULL DEFAULT 0, -- to report
    due_at          TEXT NOT NULL,              -- not to be tried before
    reason          TEXT NOT NULL DEFAULT ''    -- why the last attempt failed
) STRICT;

CREATE INDEX commitment_open ON commitment (due_at) WHERE acknowledged_at IS NULL;

CREATE TABLE commitment_reference (
    commitment_id    INTEGER NOT NULL REFERENCES commitment (id) ON DELETE CASCADE,
    number           INTEGER NOT NULL,          -- position in the request
    sop_class_uid    TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    outcome          INTEGER,                   -- 0: safe; else Failure Reason, PS3.3 C.14.1.1; NULL: not looked at yet
    PRIMARY KEY (commitment_id, number)
) STRICT, WITHOUT ROWID;
