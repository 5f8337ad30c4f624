-- Forwarding to site archives: what is owed to whom, and how it stands with each of them. Times are UTC.

CREATE TABLE forward_target (
    ae_title    TEXT PRIMARY KEY,
    is_standing INTEGER NOT NULL CHECK (is_standing IN (0, 1)), -- 1: every instance from now on is owed to it
    attempts    INTEGER NOT NULL DEFAULT 0,     -- calls since it last settled something
    due_at      TEXT NOT NULL,                  -- not to be called before
    reason      TEXT NOT NULL DEFAULT ''        -- why the last call came to nothing
) STRICT, WITHOUT ROWID;

-- Open = the last two times are NULL. Ids are never used again: who settles one that is gone settles nothing.
CREATE TABLE forward (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    target       TEXT NOT NULL REFERENCES forward_target (ae_title),
    instance_id  INTEGER NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
    study_id     INTEGER NOT NULL,              -- of the instance; what is owed of one study leaves in order
    owed_at      TEXT NOT NULL,
    due_at       TEXT NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    reason       TEXT NOT NULL DEFAULT '',      -- why the last attempt failed, or why it is parked
    delivered_at TEXT,
    parked_at    TEXT,
    UNIQUE (instance_id, target),
    CHECK (delivered_at IS NULL OR parked_at IS NULL)
) STRICT;

CREATE INDEX forward_open ON forward (target, id) WHERE delivered_at IS NULL AND parked_at IS NULL;
CREATE INDEX forward_parked ON forward (target, id) WHERE parked_at IS NOT NULL;
CREATE INDEX forward_unconfirmed ON forward (study_id) WHERE delivered_at IS NULL;

-- Owed in the statement that makes it an instance of the archive, whoever enters it and for whatever reason.
CREATE TRIGGER instance_is_owed AFTER INSERT ON instance
BEGIN
    INSERT INTO forward (target, instance_id, study_id, owed_at, due_at)
    SELECT ae_title, NEW.id, (SELECT study_id FROM series WHERE id = NEW.series_id), NEW.received_at, NEW.received_at
    FROM forward_target WHERE is_standing = 1;
END;
