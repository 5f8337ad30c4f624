-- What is held back may be let go, or never be sent: then a person has discarded it, by name and with a reason. Nobody is owed
-- it any more, so delivered_at has the time of the decision; but it was delivered to nobody, and is not counted as such.
ALTER TABLE outbox ADD COLUMN discarded_by TEXT NOT NULL DEFAULT '';        -- who decided so; '' = nobody
ALTER TABLE outbox ADD COLUMN discarded_because TEXT NOT NULL DEFAULT '';

DROP TRIGGER outbox_entry_settled;
CREATE TRIGGER outbox_entry_settled AFTER UPDATE OF delivered_at ON outbox
WHEN (OLD.delivered_at IS NULL) <> (NEW.delivered_at IS NULL) AND NEW.discarded_by = ''
BEGIN
    UPDATE outbox_total SET delivered_count = delivered_count + iif(NEW.delivered_at IS NULL, -1, 1);
END;

DROP TRIGGER outbox_entry_removed;
CREATE TRIGGER outbox_entry_removed AFTER DELETE ON outbox WHEN OLD.delivered_at IS NOT NULL AND OLD.discarded_by = ''
BEGIN
    UPDATE outbox_total SET delivered_count = delivered_count - 1;
END;
