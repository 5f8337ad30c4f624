"""Operation of a site: the command line, its checks, backups, diagnostics and the viewer. No service imports it.

Not for: serving machines or the cloud (`worklist`, `pacs`, `relay`).
"""
