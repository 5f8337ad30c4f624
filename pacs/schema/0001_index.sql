-- What the archive holds. Columns exist for what can be matched or joined; what is answered is the data set, as DICOM JSON.
-- DICOM dates and times stay DICOM text, local, never converted. Our own times are UTC, 2026-11-22T01:02:03.456Z.
-- Columns that are compared hold what gateway.matching.column_value makes of the attribute; '' is "unknown".

CREATE TABLE study (
    id                  INTEGER PRIMARY KEY,
    study_instance_uid  TEXT NOT NULL UNIQUE,
    patient_id          TEXT NOT NULL,
    patient_name        TEXT NOT NULL,      -- folded
    patient_birth_date  TEXT NOT NULL,
    patient_sex         TEXT NOT NULL,
    accession_number    TEXT NOT NULL,
    study_date          TEXT NOT NULL,
    study_time          TEXT NOT NULL,
    study_id            TEXT NOT NULL,
    study_description   TEXT NOT NULL,
    referring_physician TEXT NOT NULL,      -- folded
    series_count        INTEGER NOT NULL DEFAULT 0,
    instance_count      INTEGER NOT NULL DEFAULT 0,
    byte_count          INTEGER NOT NULL DEFAULT 0,
    first_received_at   TEXT NOT NULL,
    last_received_at    TEXT NOT NULL,
    data_set            BLOB NOT NULL       -- patient and study level attributes of the first instance, DICOM JSON
) STRICT;

CREATE INDEX study_patient_id ON study (patient_id);
CREATE INDEX study_patient_name ON study (patient_name);
CREATE INDEX study_accession_number ON study (accession_number);
CREATE INDEX study_date ON study (study_date, study_time);
CREATE INDEX study_last_received_at ON study (last_received_at);

CREATE TABLE series (
    id                  INTEGER PRIMARY KEY,
    study_id            INTEGER NOT NULL REFERENCES study (id),
    series_instance_uid TEXT NOT NULL,
    modality            TEXT NOT NULL,
    series_number       TEXT NOT NULL,
    series_description  TEXT NOT NULL,
    pps_start_date      TEXT NOT NULL,
    pps_start_time      TEXT NOT NULL,
    sps_id              TEXT NOT NULL,      -- of the first item of RequestAttributesSequence
    requested_procedure_id TEXT NOT NULL,
    instance_count      INTEGER NOT NULL DEFAULT 0,
    data_set            BLOB NOT NULL,      -- series level attributes of the first instance, DICOM JSON
    UNIQUE (study_id, series_instance_uid)
) STRICT;

CREATE INDEX series_uid ON series (series_instance_uid);
CREATE INDEX series_modality ON series (modality, study_id);

CREATE TABLE instance (
    id                  INTEGER PRIMARY KEY,
    series_id           INTEGER NOT NULL REFERENCES series (id),
    sop_instance_uid    TEXT NOT NULL UNIQUE,
    sop_class_uid       TEXT NOT NULL,
    instance_number     TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    frame_count         INTEGER NOT NULL,   -- 0 when it has no pixels
    size_bytes          INTEGER NOT NULL,   -- of the file
    data_set_offset     INTEGER NOT NULL,   -- bytes of the file before the received data set
    sha256              TEXT NOT NULL,      -- of the whole file, 64 lower case hex digits
    calling_ae_title    TEXT NOT NULL,
    association_id      TEXT NOT NULL,
    received_at         TEXT NOT NULL,
    data_set            BLOB NOT NULL       -- everything but bulk data, DICOM JSON, compressed when that is shorter
) STRICT;

CREATE INDEX instance_series ON instance (series_id);
CREATE INDEX instance_received_at ON instance (received_at);
CREATE INDEX instance_sop_class ON instance (sop_class_uid);

-- Objects that are kept but not served: a second, different object under a UID that is taken, or a file that was complete
-- when the process ended before its sender was told Success.
CREATE TABLE quarantine (
    id                  INTEGER PRIMARY KEY,
    sop_instance_uid    TEXT NOT NULL,
    sha256              TEXT NOT NULL,
    file_name           TEXT NOT NULL UNIQUE,   -- within the quarantine folder
    reason              TEXT NOT NULL,
    calling_ae_title    TEXT NOT NULL,
    received_at         TEXT NOT NULL,
    UNIQUE (sop_instance_uid, sha256)
) STRICT;

-- Sums for the status page, kept in the same transaction as the rows they count.
CREATE TABLE total (
    only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
    study_count    INTEGER NOT NULL DEFAULT 0,
    series_count   INTEGER NOT NULL DEFAULT 0,
    instance_count INTEGER NOT NULL DEFAULT 0,
    byte_count     INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO total (only_row) VALUES (1);
