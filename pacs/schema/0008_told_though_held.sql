-- An image that was on its way when it was held back, and arrived, is not held any more, which its exam says.
CREATE TRIGGER image_told_though_held AFTER UPDATE OF held_at ON outbox
WHEN NEW.message_type = 'study.image_received' AND OLD.held_at IS NOT NULL AND NEW.held_at IS NULL
BEGIN
    INSERT INTO touched VALUES (NEW.subject, '', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                                strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 1)
        ON CONFLICT (study_instance_uid, accession_number) DO UPDATE SET last_at = excluded.last_at, times = times + 1;
END;
