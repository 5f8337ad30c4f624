"""A bundle for support: versions, settings, state and recent log lines of a site. No patient data."""
