-- What is scheduled, what was performed, and which actions of the cloud were carried out.
-- Columns are what can be matched or joined, in the form `gateway.matching.column_value` gives ('' = unknown).
-- The answer itself is the data set.

CREATE TABLE items (
    accession_number       TEXT PRIMARY KEY CHECK (length(accession_number) BETWEEN 1 AND 16),
    participant_id         TEXT NOT NULL CHECK (participant_id <> ''),
    patient_name           TEXT NOT NULL,    -- folded: lower case, no accents
    birth_date             TEXT NOT NULL,    -- YYYYMMDD
    sex                    TEXT NOT NULL,
    date                   TEXT NOT NULL CHECK (length(date) = 8),     -- YYYYMMDD, wall time of the site
    time                   TEXT NOT NULL CHECK (length(time) = 13),    -- HHMMSS.FFFFFF, wall time of the site
    modality               TEXT NOT NULL CHECK (modality <> ''),
    station_ae_titles      TEXT NOT NULL CHECK (json_valid(station_ae_titles)),    -- JSON list; [] = for any station
    physician_name         TEXT NOT NULL,    -- folded
    sps_id                 TEXT NOT NULL CHECK (sps_id <> ''),
    requested_procedure_id TEXT NOT NULL CHECK (requested_procedure_id <> ''),
    study_instance_uid     TEXT NOT NULL CHECK (length(study_instance_uid) BETWEEN 1 AND 64),
    state                  TEXT NOT NULL
        CHECK (state IN ('scheduled', 'in_progress', 'completed', 'discontinued', 'cancelled')),
    data_set               TEXT NOT NULL,    -- DICOM JSON
    action_id              TEXT NOT NULL,    -- the action that scheduled it; '' = none
    appointment_id         TEXT NOT NULL,
    revision               INTEGER NOT NULL CHECK (revision >= 1),
    created_at             TEXT NOT NULL,    -- this and the next: UTC, 2026-11-22T01:02:03.456Z
    updated_at             TEXT NOT NULL
) STRICT;

CREATE INDEX items_by_time ON items (date, time, accession_number);
CREATE INDEX items_by_participant ON items (participant_id);
CREATE INDEX items_by_name ON items (patient_name);
CREATE INDEX items_by_study ON items (study_instance_uid);
-- Most items are over; those still open are found without looking at them.
CREATE INDEX items_by_state ON items (state, date, time, accession_number);

CREATE TABLE actions (
    action_id        TEXT PRIMARY KEY,
    content_hash     TEXT NOT NULL,          -- of the message, to tell a repeat from another request under the same id
    accession_number TEXT NOT NULL REFERENCES items (accession_number),    -- the answer: this item
    done_at          TEXT NOT NULL
) STRICT;

CREATE TABLE steps (
    mpps_instance_uid TEXT PRIMARY KEY CHECK (length(mpps_instance_uid) BETWEEN 1 AND 64),
    status            TEXT NOT NULL CHECK (status IN ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')),
    data_set          TEXT NOT NULL,         -- DICOM JSON, as it is after the last N-SET
    created_from      TEXT NOT NULL,         -- SHA-256 of the N-CREATE's data set, to recognise its repeat
    created_at        TEXT NOT NULL,         -- this and the next: UTC, 2026-11-22T01:02:03.456Z
    updated_at        TEXT NOT NULL
) STRICT;

-- Which items a step performs. An accession number may come before its item does, or without one ever (unscheduled).
CREATE TABLE performed_items (
    mpps_instance_uid TEXT NOT NULL REFERENCES steps (mpps_instance_uid),
    accession_number  TEXT NOT NULL,
    PRIMARY KEY (mpps_instance_uid, accession_number)
) STRICT, WITHOUT ROWID;

CREATE INDEX performed_items_by_item ON performed_items (accession_number);
