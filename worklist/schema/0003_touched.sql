-- Exams that were touched by a change of an item or of a step, until the relay has taken the note over (gateway.touched).
CREATE TABLE touched (
    study_instance_uid TEXT NOT NULL,    -- '' = unknown, as the next
    accession_number   TEXT NOT NULL,
    first_at           TEXT NOT NULL,    -- this and the next: UTC, 2026-11-22T01:02:03.456Z
    last_at            TEXT NOT NULL,
    times              INTEGER NOT NULL CHECK (times >= 1),
    PRIMARY KEY (study_instance_uid, accession_number)
) STRICT, WITHOUT ROWID;
