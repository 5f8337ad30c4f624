"""Storage commitment (PS3.4 J): what a machine asks us to keep for good, and what it is told."""
