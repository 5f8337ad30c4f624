-- Somebody looked at a quarantined object and decided that it stays where it is and nothing is to be done. Its file stays
-- too: it may be the only copy. NULL: nobody has decided so, or has decided otherwise since.
ALTER TABLE quarantine ADD COLUMN settled_at TEXT;
ALTER TABLE quarantine ADD COLUMN settled_by TEXT NOT NULL DEFAULT '';
