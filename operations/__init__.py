"""What an operator does at a site: the command line, the checks behind it, backups, the viewer. Nobody imports it.

Not for: anything a machine or the cloud waits for; that is in `worklist`, `pacs` and `relay`.
"""
