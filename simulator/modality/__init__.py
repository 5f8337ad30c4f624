"""A mammography machine: one that keeps to the rules, one that follows a script, and one that misbehaves."""
