-- What came and what went, in order, for scripts that follow it. Numbers grow and are never used again.

CREATE TABLE change (
    number              INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_id         INTEGER UNIQUE,     -- stored: what is there now; NULL: removed, and the next columns say what it was
    study_instance_uid  TEXT,
    series_instance_uid TEXT,
    sop_instance_uid    TEXT,
    removed_at          TEXT,               -- UTC
    CHECK ((instance_id IS NULL) = (removed_at IS NOT NULL))
) STRICT;

INSERT INTO change (instance_id) SELECT id FROM instance ORDER BY id;

CREATE TRIGGER instance_came AFTER INSERT ON instance
BEGIN
    INSERT INTO change (instance_id) VALUES (NEW.id);
END;

-- That it came is not told any more; ids of instances may be used again.
CREATE TRIGGER instance_went BEFORE DELETE ON instance
BEGIN
    DELETE FROM change WHERE instance_id = OLD.id;
    INSERT INTO change (study_instance_uid, series_instance_uid, sop_instance_uid, removed_at)
    SELECT study_instance_uid, series_instance_uid, OLD.sop_instance_uid, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    FROM series JOIN study ON study.id = series.study_id WHERE series.id = OLD.series_id;
END;
