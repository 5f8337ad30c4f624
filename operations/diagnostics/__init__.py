"""A bundle for support: what runs at a site, how it is set, how it is, and what it wrote lately. No patient data."""
