"""What keeps the archive well, by night and on request: fsck, scrub, retention, quarantine."""
