-- What is held back is parked until a person lets it go by name, and is not held back a second time.
ALTER TABLE outbox ADD COLUMN held_at TEXT;                            -- UTC; NULL: never held back
ALTER TABLE outbox ADD COLUMN released_by TEXT NOT NULL DEFAULT '';    -- who let it go; '' = nobody
