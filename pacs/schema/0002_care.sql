-- Care over years: what was promised, what was found damaged, what shall go, and what an operator decided.

-- When storage commitment promised the safekeeping of an instance (PS3.4 Annex J), UTC; NULL: never asked, or refused.
ALTER TABLE instance ADD COLUMN committed_at TEXT;

-- Instances whose file was not as it was received when somebody last looked. The row goes when the file is well again.
CREATE TABLE damage (
    instance_id INTEGER PRIMARY KEY REFERENCES instance (id) ON DELETE CASCADE,
    code        TEXT NOT NULL CHECK (code IN ('missing_file', 'wrong_size', 'wrong_hash', 'unreadable_file')),
    found_at    TEXT NOT NULL
) STRICT;

-- Files that shall go because their rows went, in the same transaction; the process that owns the folder removes them.
CREATE TABLE removal (
    sop_instance_uid TEXT PRIMARY KEY,
    ordered_at       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What was received again must not be removed any more.
CREATE TRIGGER instance_is_wanted_again AFTER INSERT ON instance
BEGIN
    DELETE FROM removal WHERE sop_instance_uid = NEW.sop_instance_uid;
END;

-- How far the scrub has come. Both times NULL: never begun; the second NULL: a pass is under way.
CREATE TABLE scrub (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    began_at      TEXT,
    ended_at      TEXT,
    instance_id   INTEGER NOT NULL DEFAULT 0,   -- the last one that was looked at
    file_count    INTEGER NOT NULL DEFAULT 0,   -- this and the next two: of the pass
    byte_count    INTEGER NOT NULL DEFAULT 0,
    damaged_count INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO scrub (only_row) VALUES (1);

-- What an operator decided about a quarantined object; the process that owns the folder carries it out, or says why not.
ALTER TABLE quarantine ADD COLUMN decision TEXT CHECK (decision IN ('store', 'replace'));
ALTER TABLE quarantine ADD COLUMN decided_by TEXT NOT NULL DEFAULT '';
ALTER TABLE quarantine ADD COLUMN refusal TEXT NOT NULL DEFAULT '';
