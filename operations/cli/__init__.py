"""The command line `gateway`; a file for each family of commands.

A command prints facts for people, or with `--json` for programs, and ends with 0 (done, well), 1 (not done, not well)
or 78 (the settings are wrong); 2 is a mistake in the command itself. It reads the same variables as the services; on a
site `systemd/gateway` runs it with theirs.

Not for: the rules behind a command; each is in its own module.
"""

from operations.cli.root import app, main

__all__ = ["app", "main"]
