"""Makes the deliveries from the settings: one loop for each destination, which delivers both outboxes to it.

Not here: delivering (`relay.delivery.delivery`), a destination itself (`relay.assembly.destinations`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gateway.messages import HealthReport
from gateway.outbox import Entry, Outbox
from pacs import Archive
from relay.assembly.clock import now
from relay.assembly.destinations import MOST_BYTES, allowance, destination
from relay.delivery.composer import Composer, cloud_action_id
from relay.delivery.delivery import Delivery, Destination, kind_of_message, weight_of_message
from relay.delivery.heartbeat import beat
from relay.delivery.https_api import kind_of_upload, weight_of_upload
from relay.delivery.quota import Quota
from relay.delivery.thumbnails import thumbnail
from relay.exams.holding import HoldRules
from relay.render_pool import Renderer
from relay.setting_types import DestinationName
from relay.settings import RelaySettings
from worklist import Worklist


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The delivery loops of a site. `loops`, `destinations` and `allowances` have the settings' order."""

    outboxes: tuple[Outbox, ...]
    loops: tuple[Delivery, ...]
    destinations: dict[DestinationName, Destination]
    allowances: dict[DestinationName, Quota]
    site: str
    heartbeat_seconds: float

    def prepare(self) -> None:
        """Write the destinations into the outboxes, and read what was sent to each today. Blocks."""
        # A trigger makes a delivery row per destination with each fact. Without a destination in the settings the
        # former ones stay, so that entries wait for them.
        for outbox in self.outboxes if self.destinations else ():
            outbox.serve(tuple(self.destinations), now=now())
        for name, own in self.allowances.items():
            own.remember(partial(sent_by, self.outboxes, name))

    async def beat(self, loop: Delivery, health: Callable[[], HealthReport]) -> None:
        """Send the site's heartbeat to the destination of a loop until cancelled."""
        await beat(loop, health=health, site=self.site, seconds=self.heartbeat_seconds, clock=now)


def deliveries(
    settings: RelaySettings,
    worklist: Worklist,
    archive: Archive,
    *,
    renderer: Renderer,
    holding: HoldRules,
) -> Deliveries:
    """Make the loops that the settings name, none of them running."""
    outboxes = (worklist.outbox, archive.outbox)
    allowances = {name: allowance(settings) for name in settings.destinations}
    destinations = {name: destination(name, settings, archive, own) for name, own in allowances.items()}

    async def action_id_of(accession_number: str) -> str | None:
        return await asyncio.to_thread(cloud_action_id, worklist, accession_number)

    async def reason_to_hold(entry: Entry) -> str:
        return await asyncio.to_thread(holding.reason, entry)

    def loop(name: DestinationName, own: Quota) -> Delivery:
        uploads = name == "manage"  # its messages are the images themselves: no thumbnail, and the weight of the file
        compose = Composer(
            settings.site,
            preview=None if uploads else partial(thumbnail, archive, renderer),
            action_id_of=action_id_of,
            most_bytes=MOST_BYTES.get(name),
            has_room=own.has_room,
            reason_to_hold=reason_to_hold,
        )
        return Delivery(
            outboxes,
            destinations[name],
            compose=compose,
            clock=now,
            name=name,
            allowance=own,
            kind_of=kind_of_upload if uploads else kind_of_message,
            weigh=weight_of_upload if uploads else weight_of_message,
        )

    loops = tuple(loop(name, own) for name, own in allowances.items())
    return Deliveries(outboxes, loops, destinations, allowances, settings.site, settings.heartbeat_seconds)


def sent_by(outboxes: Sequence[Outbox], name: str, since: datetime) -> Counter[int]:
    """How many bytes a destination has confirmed since then, by class."""
    total = Counter[int]()
    for outbox in outboxes:
        total.update(outbox.sent(name, since=since))
    return total
