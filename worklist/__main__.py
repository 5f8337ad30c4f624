"""Start the worklist: `python -m worklist`."""

import sys
from contextlib import closing

from gateway.application import Limits
from gateway.listener import Listener
from gateway.log import configure
from gateway.process import run, until_stopped
from gateway.settings import load
from gateway.tls import server_context
from worklist.scp import Scp
from worklist.settings import WorklistSettings
from worklist.store import Worklist


def main() -> None:
    """Serve modalities until asked to stop."""
    settings = load(WorklistSettings)
    configure(settings.log_level, process="worklist")
    tls = server_context(settings)
    with closing(Worklist.open(settings.db_path, shown=settings.shown_states)) as worklist:
        application = Scp(worklist, character_sets=settings.character_sets).application(settings.aet)
        limits = Limits(settings.max_associations, settings.max_associations_per_peer)
        callers = settings.calling_aets
        with Listener(
            application, host=settings.host, port=settings.port, limits=limits, callers=callers, tls=tls
        ) as listener:
            until_stopped(listener.still_working)


if __name__ == "__main__":
    sys.exit(run(main))
