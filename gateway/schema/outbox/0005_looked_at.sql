-- What people look at on the page of the queue, answered in a time that does not grow with what was delivered over years.

-- Duties that failed and are tried again: when next, and why the last attempt failed.
CREATE INDEX outbox_duty_postponed ON outbox_duty (destination, due_at)
WHERE delivered_at IS NULL AND parked_at IS NULL AND attempts > 0;

-- What each destination confirmed on each day (UTC), kept in the same transaction as the rows it counts.
CREATE TABLE outbox_day (
    destination TEXT NOT NULL,
    day         TEXT NOT NULL,      -- 2026-11-22
    count       INTEGER NOT NULL,   -- entries
    byte_count  INTEGER NOT NULL,   -- sent for them, as far as it is known (outbox_duty.sent)
    PRIMARY KEY (destination, day)
) STRICT, WITHOUT ROWID;

INSERT INTO outbox_day
SELECT destination, substr(delivered_at, 1, 10), count(*),
       sum((SELECT coalesce(sum(value), 0) FROM json_each(sent)))
FROM outbox_duty WHERE delivered_at IS NOT NULL GROUP BY 1, 2;

CREATE TRIGGER outbox_duty_delivered AFTER UPDATE OF delivered_at ON outbox_duty
WHEN OLD.delivered_at IS NULL AND NEW.delivered_at IS NOT NULL
BEGIN
    INSERT INTO outbox_day
    VALUES (NEW.destination, substr(NEW.delivered_at, 1, 10), 1,
            (SELECT coalesce(sum(value), 0) FROM json_each(NEW.sent)))
    ON CONFLICT (destination, day) DO UPDATE SET count = count + 1, byte_count = byte_count + excluded.byte_count;
END;
