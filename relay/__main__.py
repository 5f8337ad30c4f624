"""Start the relay: `python -m relay`."""

import asyncio
import sys
from contextlib import closing

from gateway.log import configure
from gateway.process import run
from gateway.refusals import FILE_NAME, RefusalRecorder
from gateway.settings import load
from pacs import Archive
from relay.assembly.http_access import require_safe
from relay.assembly.relay import Relay, attached
from relay.settings import RelaySettings
from worklist import Worklist


def main() -> None:
    """Run the relay until the process is stopped."""
    settings = load(RelaySettings)
    configure(settings.log_level, process="relay")
    require_safe(settings)
    with (
        closing(attached(lambda: Worklist.attach(settings.worklist_db_path))) as worklist,
        closing(attached(lambda: Archive.attach(settings.pacs_db_path, settings.pacs_storage_path))) as archive,
        RefusalRecorder(settings.data_dir / FILE_NAME, process="relay") as refusals,
    ):
        asyncio.run(Relay.of(settings, worklist, archive, note=refusals.note).run())


if __name__ == "__main__":
    sys.exit(run(main))
