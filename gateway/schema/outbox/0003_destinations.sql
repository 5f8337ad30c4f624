-- Several destinations may have to be told of the same entry, each at its own pace. A duty is one entry at one destination:
-- open while both its times are NULL. The entry itself is delivered when no duty is left, and parked as soon as one is.

-- Who is told. The relay writes its settings here when it starts; until the first start, somebody called cloud.
CREATE TABLE outbox_destination (name TEXT PRIMARY KEY) STRICT;
INSERT INTO outbox_destination VALUES ('cloud');

CREATE TABLE outbox_duty (
    entry_id     INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    destination  TEXT NOT NULL,              -- kept when it is not served any more, as the record of what it was told
    subject      TEXT NOT NULL,              -- this and the next as in the entry, for the indexes below
    priority     INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    due_at       TEXT NOT NULL,              -- times as in outbox
    reason       TEXT NOT NULL DEFAULT '',   -- why the last attempt failed, or why it is parked
    sent         TEXT NOT NULL DEFAULT '{}', -- JSON object: bytes that were sent, by class (relay.allowance)
    delivered_at TEXT,
    parked_at    TEXT,
    PRIMARY KEY (entry_id, destination),
    CHECK (delivered_at IS NULL OR parked_at IS NULL)
) STRICT;

INSERT INTO outbox_duty (entry_id, destination, subject, priority, attempts, due_at, reason, delivered_at, parked_at)
SELECT id, 'cloud', subject, priority, attempts, due_at, reason, delivered_at, parked_at FROM outbox;

CREATE INDEX outbox_duty_open_by_priority ON outbox_duty (destination, priority, entry_id)
WHERE delivered_at IS NULL AND parked_at IS NULL;
CREATE INDEX outbox_duty_open_by_subject ON outbox_duty (destination, subject, entry_id)
WHERE delivered_at IS NULL AND parked_at IS NULL;
CREATE INDEX outbox_duty_parked ON outbox_duty (entry_id) WHERE parked_at IS NOT NULL;

-- An attempt is made at a destination, so these are the duty's now.
DROP INDEX outbox_open_by_due_time;
DROP INDEX outbox_open_by_subject;
DROP INDEX outbox_open_by_priority;
ALTER TABLE outbox DROP COLUMN attempts;
ALTER TABLE outbox DROP COLUMN due_at;
ALTER TABLE outbox DROP COLUMN reason;

CREATE TRIGGER outbox_entry_owed AFTER INSERT ON outbox WHEN NEW.delivered_at IS NULL AND NEW.parked_at IS NULL
BEGIN
    INSERT INTO outbox_duty (entry_id, destination, subject, priority, due_at)
    SELECT NEW.id, name, NEW.subject, NEW.priority, NEW.created_at FROM outbox_destination;
END;
