"""Copies of a site's databases, and the way back from one."""
