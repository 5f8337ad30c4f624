"""What the three processes of a site were told, and how the site is called from this machine.

Not for: a check, a backup or a command by itself; they are given the settings as values.
"""

import socket
from dataclasses import dataclass
from typing import Self

from gateway import settings
from gateway.remote_ae import Peer, reachable
from gateway.tls import client_context
from pacs.settings import PacsSettings
from relay.assembly.http_access import https_files
from relay.cloud.dicomweb_proxy import own_url
from relay.settings import RelaySettings
from simulator.modality.modality import Modality
from worklist.settings import WorklistSettings

CALLING_AE_TITLE = "GATEWAY_CHECK"
"""Who we say we are unless a title in GATEWAY_CALLING_AETS may call from this machine."""


@dataclass(frozen=True)
class SiteSettings:
    """What all three processes were told."""

    worklist: WorklistSettings
    pacs: PacsSettings
    relay: RelaySettings

    @classmethod
    def load(cls) -> Self:
        """Read the settings of all three. Raises SettingsError for the first process that has a wrong one."""
        return cls(settings.load(WorklistSettings), settings.load(PacsSettings), settings.load(RelaySettings))

    @property
    def url(self) -> str:
        """Where pages and DICOMweb are, seen from this machine."""
        return relay_url(self.relay)

    @property
    def calling_ae_title(self) -> str:
        """Who we are for this site when nobody says: the first title that may call from this machine."""
        callers = self.worklist.calling_aets
        here = _address(reachable(self.worklist.host)) if callers else ""
        return next((each.ae_title for each in callers if each.calls_from(here)), CALLING_AE_TITLE)

    @property
    def peers(self) -> tuple[Peer, Peer]:
        """Worklist and archive, as they are called from this machine."""
        return (
            Peer(self.worklist.aet, reachable(self.worklist.host), self.worklist.port),
            Peer(self.pacs.aet, reachable(self.pacs.host), self.pacs.port),
        )

    def modality(self) -> Modality:
        """A machine that calls this site."""
        worklist, pacs = self.peers
        return Modality(self.calling_ae_title, worklist=worklist, pacs=pacs, tls=client_context(self.worklist))


def relay_url(relay: RelaySettings) -> str:
    """Where this machine reaches the pages and DICOMweb."""
    return own_url(relay.http_host, relay.http_port, scheme="http" if https_files(relay) is None else "https")


def _address(host: str) -> str:
    """Of which address a call to one of ours is. Raises OSError for a name that nobody knows."""
    return str(socket.getaddrinfo(host, None)[0][4][0])
