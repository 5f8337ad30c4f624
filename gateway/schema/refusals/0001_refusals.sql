-- What machines and the cloud were refused lately, for people. Nothing depends on it: with the services stopped the file
-- may be deleted, and the next refusal makes a new one. Times are UTC, 2026-11-22T01:02:03.456Z. No patient data.
CREATE TABLE refusal (
    id       INTEGER PRIMARY KEY,
    process  TEXT NOT NULL,     -- who refused: worklist, pacs or relay
    service  TEXT NOT NULL,     -- what was wanted: association, C-STORE, N-CREATE ..., cloud command
    kind     TEXT NOT NULL,     -- what to do about it is said by gateway.remedies
    ae_title TEXT NOT NULL,     -- of who called; '' when it did not come to say so
    address  TEXT NOT NULL,     -- '' for the cloud
    status   TEXT NOT NULL,     -- DIMSE status such as A700H; '' where there is none
    sentence TEXT NOT NULL,     -- this and the next of the last time
    about    TEXT NOT NULL,     -- SOP Instance UID or action id; '' when it is about none
    alike    TEXT NOT NULL,     -- the sentence without numbers and UIDs: the same refusal has the same
    first_at TEXT NOT NULL,
    last_at  TEXT NOT NULL,
    count    INTEGER NOT NULL CHECK (count > 0)
) STRICT;

CREATE INDEX refusal_same ON refusal (process, service, kind, ae_title, address, alike, last_at);
CREATE INDEX refusal_last_at ON refusal (last_at);

-- How many could not be written down, because there were too many at once or the disk was full for long.
CREATE TABLE refusal_lost (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    count    INTEGER NOT NULL DEFAULT 0,
    last_at  TEXT
) STRICT;

INSERT INTO refusal_lost (only_row) VALUES (1);
