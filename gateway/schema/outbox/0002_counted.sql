-- Questions that are asked all day get an answer that does not grow with what was delivered over the years.

CREATE INDEX outbox_open_by_creation ON outbox (created_at) WHERE delivered_at IS NULL AND parked_at IS NULL;
CREATE INDEX outbox_open_by_due_time ON outbox (due_at) WHERE delivered_at IS NULL AND parked_at IS NULL;

-- How many entries are delivered, kept in the same transaction as the rows it counts.
CREATE TABLE outbox_total (
    only_row        INTEGER PRIMARY KEY CHECK (only_row = 1),
    delivered_count INTEGER NOT NULL
) STRICT;

INSERT INTO outbox_total SELECT 1, count(*) FROM outbox WHERE delivered_at IS NOT NULL;

CREATE TRIGGER outbox_entry_added AFTER INSERT ON outbox WHEN NEW.delivered_at IS NOT NULL
BEGIN
    UPDATE outbox_total SET delivered_count = delivered_count + 1;
END;

CREATE TRIGGER outbox_entry_settled AFTER UPDATE OF delivered_at ON outbox
WHEN (OLD.delivered_at IS NULL) <> (NEW.delivered_at IS NULL)
BEGIN
    UPDATE outbox_total SET delivered_count = delivered_count + iif(NEW.delivered_at IS NULL, -1, 1);
END;

CREATE TRIGGER outbox_entry_removed AFTER DELETE ON outbox WHEN OLD.delivered_at IS NOT NULL
BEGIN
    UPDATE outbox_total SET delivered_count = delivered_count - 1;
END;
