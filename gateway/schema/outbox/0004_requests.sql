-- From priority 4 on an entry is not an event but something that the cloud asked for (gateway.messages.PRIORITY). Nobody
-- elsewhere is told of it: its one duty is the relay's own, full images or chores.
DROP TRIGGER outbox_entry_owed;

CREATE TRIGGER outbox_event_owed AFTER INSERT ON outbox
WHEN NEW.priority < 4 AND NEW.delivered_at IS NULL AND NEW.parked_at IS NULL
BEGIN
    INSERT INTO outbox_duty (entry_id, destination, subject, priority, due_at)
    SELECT NEW.id, name, NEW.subject, NEW.priority, NEW.created_at FROM outbox_destination;
END;

CREATE TRIGGER outbox_request_owed AFTER INSERT ON outbox
WHEN NEW.priority >= 4 AND NEW.delivered_at IS NULL AND NEW.parked_at IS NULL
BEGIN
    INSERT INTO outbox_duty (entry_id, destination, subject, priority, due_at)
    VALUES (NEW.id, iif(NEW.priority = 4, 'full images', 'chores'), NEW.subject, NEW.priority, NEW.created_at);
END;
