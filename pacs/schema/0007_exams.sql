-- What the cloud is told of whole exams.

-- Exams that were touched and have not been judged since (gateway.touched): by an image here, or carried over from the
-- worklist.
CREATE TABLE touched (
    study_instance_uid TEXT NOT NULL,    -- '' = unknown, as the next
    accession_number   TEXT NOT NULL,
    first_at           TEXT NOT NULL,    -- this and the next: UTC, 2026-11-22T01:02:03.456Z
    last_at            TEXT NOT NULL,
    times              INTEGER NOT NULL CHECK (times >= 1),
    PRIMARY KEY (study_instance_uid, accession_number)
) STRICT, WITHOUT ROWID;

-- The judgement that the cloud was told last of an exam. It stays when the images go, so that a revision is never used
-- twice.
CREATE TABLE judgement (
    accession_number   TEXT PRIMARY KEY,
    study_instance_uid TEXT NOT NULL,
    revision           INTEGER NOT NULL CHECK (revision >= 1),
    digest             TEXT NOT NULL     -- of what was told
) STRICT, WITHOUT ROWID;

-- An image that a person lets go is not held back any more, which its exam says.
CREATE TRIGGER image_released AFTER UPDATE OF released_by ON outbox
WHEN NEW.message_type = 'study.image_received' AND NEW.released_by <> OLD.released_by
BEGIN
    INSERT INTO touched VALUES (NEW.subject, '', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                                strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 1)
        ON CONFLICT (study_instance_uid, accession_number) DO UPDATE SET last_at = excluded.last_at, times = times + 1;
END;

-- Whether an instance that is not here was here once is asked for one instance or one study.
CREATE INDEX change_removed_instance ON change (sop_instance_uid) WHERE removed_at IS NOT NULL;
CREATE INDEX change_removed_study ON change (study_instance_uid) WHERE removed_at IS NOT NULL;
