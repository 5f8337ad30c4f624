"""Backups of a site, and restoring one."""
