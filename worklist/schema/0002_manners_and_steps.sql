-- Who closed a step in its machine's place, and why; '' = the machine ended it itself, or nobody yet.
ALTER TABLE steps ADD COLUMN closed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE steps ADD COLUMN closed_because TEXT NOT NULL DEFAULT '';

-- The accession number under which the cloud is told of a step: that of its item, fixed when it began, so that all events
-- of a step are of one subject. '' = none.
ALTER TABLE steps ADD COLUMN told_as TEXT NOT NULL DEFAULT '';
UPDATE steps SET told_as = coalesce(
    (SELECT parameters ->> '$.accession_number' FROM outbox WHERE message_id = mpps_instance_uid || '/in_progress'), '');

-- The time the newest request was made that changed the item, by the clock of who made it: UTC,
-- 2026-11-22T01:02:03.456Z; '' = unknown. An older request that comes later changes nothing.
ALTER TABLE items ADD COLUMN asked_at TEXT NOT NULL DEFAULT '';

-- What the steps say was made: the evidence that everything has arrived.
CREATE TABLE performed_instances (
    mpps_instance_uid   TEXT NOT NULL REFERENCES steps (mpps_instance_uid),
    sop_instance_uid    TEXT NOT NULL CHECK (length(sop_instance_uid) BETWEEN 1 AND 64),
    series_instance_uid TEXT NOT NULL CHECK (length(series_instance_uid) BETWEEN 1 AND 64),
    sop_class_uid       TEXT NOT NULL,
    is_image            INTEGER NOT NULL CHECK (is_image IN (0, 1)),    -- 0: of Referenced Non-Image Composite SOP ...
    PRIMARY KEY (mpps_instance_uid, sop_instance_uid)
) STRICT, WITHOUT ROWID;

-- Those still open are found without looking at those that are over.
CREATE INDEX steps_in_progress ON steps (created_at) WHERE status = 'IN PROGRESS';
CREATE INDEX actions_by_item ON actions (accession_number);

INSERT INTO performed_instances
SELECT steps.mpps_instance_uid, reference.value ->> '$."00081155".Value[0]', series.value ->> '$."0020000E".Value[0]',
       coalesce(reference.value ->> '$."00081150".Value[0]', ''), kind.is_image
  FROM steps
  JOIN json_each(steps.data_set, '$."00400340".Value') AS series
  JOIN (SELECT '$."00081140".Value' AS path, 1 AS is_image UNION ALL SELECT '$."00400220".Value', 0) AS kind
  JOIN json_each(series.value, kind.path) AS reference
 WHERE length(reference.value ->> '$."00081155".Value[0]') BETWEEN 1 AND 64
   AND length(series.value ->> '$."0020000E".Value[0]') BETWEEN 1 AND 64
    ON CONFLICT DO NOTHING;
