"""Looks up the facts for the health report in databases, disk and files.

A lookup that fails is a fact as well, because the report must always be made. Not for: judging (`relay.health.report`),
the state of deliveries.
"""

from dataclasses import replace
from pathlib import Path

import structlog

from gateway.disk_space import USUAL_WATERMARKS, Watermarks, volume_of
from gateway.outbox import Outbox
from gateway.sqlite import utc_text
from pacs import Archive, ForwardQueue
from relay.health.report import Disk, Forwards, HopFact, Images, QueueFact
from relay.hybrid.listener import LinkState
from worklist import Worklist

log = structlog.get_logger()


def queue(name: str, outbox: Outbox) -> QueueFact:
    """The pending entries of one database, or that it cannot be read."""
    try:
        counts, oldest, parked = outbox.counts(), outbox.oldest_open(), outbox.entries("parked", limit=1)
    except Exception:  # the report has to be made all the same
        log.exception("database not readable", database=name)
        return QueueFact(name, trouble="The database cannot be read; the log says why.")
    because = parked[0].reason if parked else ""
    return QueueFact(name, open=counts["open"], parked=counts["parked"], oldest=oldest, parked_because=because)


def archive_queue(archive: Archive) -> QueueFact:
    """The archive's pending entries for the cloud, and for the site archives that images are forwarded to."""
    pending = queue("archive", archive.outbox)
    if pending.trouble:
        return pending
    forwarding, forwards = ForwardQueue(archive), []
    for each in forwarding.targets():
        because = next((one.reason for one in forwarding.owed("parked", target=each.target, limit=1)), "")
        forwards.append(Forwards(each.target, each.open, each.parked, each.oldest_open, each.reason, because))
    return replace(pending, forwards=tuple(forwards))


def disk(folder: Path, watermarks: Watermarks = USUAL_WATERMARKS) -> Disk:
    """How full the data volume is, or that it is not there."""
    try:
        return Disk(volume_of(folder), watermarks)
    except OSError as error:
        return Disk(trouble=f"The folder of the images cannot be looked at: {error.strerror}.")


def images(archive: Archive) -> Images | None:
    """The known damage; None when the database cannot be read, which its queue reports."""
    try:
        condition = archive.condition()
        return Images(condition.damaged, condition.scrub.began_at, condition.scrub.ended_at)
    except Exception:  # the report has to be made all the same
        log.exception("database not readable", database="archive")
        return None


def last_step(worklist: Worklist) -> str:
    """When a machine last began a step; '' when the database cannot be read, which its queue reports."""
    try:
        at = worklist.began_last()
    except Exception:  # the report has to be made all the same
        log.exception("database not readable", database="worklist")
        return ""
    return f"A machine last began a step at {at}." if at else "No machine has begun a step yet."


def last_image(archive: Archive) -> str:
    """The AE title that last sent an image that was kept, and when; '' as for `last_step`."""
    try:
        last = next(iter(archive.latest(1)), None)
    except Exception:  # the report has to be made all the same
        log.exception("database not readable", database="archive")
        return ""
    return f"{last.calling_ae_title} last sent an image at {last.received_at}." if last else "No image has come yet."


def link_hop(state: LinkState) -> HopFact:
    """The fact for the health report of the link."""
    # A trouble that is older than the last proof is over.
    over = state.last_error_at is None or (state.last_proven is not None and state.last_proven > state.last_error_at)
    return HopFact("hybrid_connection", state.last_proven, "" if over else state.last_error, instead=_instead(state))


def _instead(state: LinkState) -> str:
    """The stand-in for a proof where the key may not send; '' elsewhere."""
    # A quiet channel is replaced within two minutes, so the service has admitted the listener a short while ago.
    if state.echoes or state.connected_since is None:
        return ""
    since = "yet" if state.last_proven is None else f"since {utc_text(state.last_proven)}"
    return (
        f"Connected, not proven: the key may not send. Nothing came from the cloud {since}. The listener is renewed "
        "within two minutes."
    )
