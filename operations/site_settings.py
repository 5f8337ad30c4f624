"""The settings of a site's three processes, and the addresses by which this machine calls them.

Not for: checks, backups and commands themselves; they get settings as values.
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
"""Our calling AE title unless one in GATEWAY_CALLING_AETS may call from this machine."""


@dataclass(frozen=True)
class SiteSettings:
    """The settings of all three processes."""

    worklist: WorklistSettings
    pacs: PacsSettings
    relay: RelaySettings

    @classmethod
    def load(cls) -> Self:
        """Read the settings of all three. Raises SettingsError for the first process that has a wrong one."""
        return cls(settings.load(WorklistSettings), settings.load(PacsSettings), settings.load(RelaySettings))

    @property
    def url(self) -> str:
        """The address of pages and DICOMweb, seen from this machine."""
        return relay_url(self.relay)

    @property
    def calling_ae_title(self) -> str:
        """The default calling AE title: the first one that may call from this machine."""
        # A title of our own would be rejected where GATEWAY_CALLING_AETS restricts the callers.
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
    """The address by which this machine reaches pages and DICOMweb."""
    return own_url(relay.http_host, relay.http_port, scheme="http" if https_files(relay) is None else "https")


def _address(host: str) -> str:
    """The address of a host. Raises OSError for a name that cannot be resolved."""
    return str(socket.getaddrinfo(host, None)[0][4][0])
